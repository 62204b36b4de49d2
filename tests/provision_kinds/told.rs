//! Hosts that are told, and answers from fixtures.

use camino::Utf8Path;
use ephemerd::host::{Host, Os};
use ephemerd::provision::Verdict;
use ephemerd::provision::context::Context;
use ephemerd::provision::kind::Kind;
use ephemerd::provision::question::{Answer, Answers, Entry, EntryKind, Question, Ran, View};
use ephemerd::provision::step::{Action, Fix};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/host");

/// A fixture without its first line, which says what it is based on.
pub(crate) fn fixture(name: &str) -> String {
    let path = Utf8Path::new(FIXTURES).join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(
        first.starts_with("# based on: ") || first.starts_with("# made up"),
        "{path}: {first}"
    );
    rest.to_owned()
}

/// A program that printed a fixture and ended with a code.
pub(crate) fn printed(name: &str, code: i32) -> Answer {
    Answer::Ran(Ran {
        code: Some(code),
        stdout: fixture(name),
        stderr: String::new(),
    })
}

/// A program that complained in the words of a fixture and ended with a code.
pub(crate) fn complained(name: &str, code: i32) -> Answer {
    Answer::Ran(Ran {
        code: Some(code),
        stdout: String::new(),
        stderr: fixture(name),
    })
}

/// A program that printed a word or nothing.
pub(crate) fn said(word: &str, code: i32) -> Answer {
    Answer::Ran(Ran {
        code: Some(code),
        stdout: format!("{word}\n"),
        stderr: String::new(),
    })
}

pub(crate) fn text(text: &str) -> Answer {
    Answer::Text(text.to_owned())
}

/// Something of root's.
pub(crate) fn there(is: EntryKind, mode: u32) -> Answer {
    Answer::Entry(Entry {
        is,
        owner: "root".to_owned(),
        group: "wheel".to_owned(),
        mode,
        sha256: None,
    })
}

/// A host with one slot.
pub(crate) fn host(os: Os) -> Context {
    Context {
        host: Host { os, ..Host::system() },
        arch: match os {
            Os::MacOs => "arm64".to_owned(),
            Os::Linux => "x86_64".to_owned(),
        },
        release: match os {
            Os::MacOs => "26.1".to_owned(),
            Os::Linux => "6.12.48".to_owned(),
        },
        distribution: match os {
            Os::MacOs => vec![],
            Os::Linux => vec!["debian".to_owned()],
        },
        distribution_version: "12".to_owned(),
        brew: None,
        job_path: vec![],
        accounts: vec!["_eph1".to_owned()],
        group: "_eph".to_owned(),
        data_dir: "/var/lib/ephemerd".into(),
        present: vec![],
        root: true,
    }
}

/// A question in words: the program's name and its arguments, or a verb and a path.
pub(crate) fn words(view: View, question: &Question) -> String {
    let words = match question {
        Question::Run(tool) => {
            let name = tool.program.file_name().unwrap();
            std::iter::once(name)
                .chain(tool.args.iter().map(String::as_str))
                .collect::<Vec<_>>()
                .join(" ")
        }
        Question::Look { path, .. } => format!("look {path}"),
        Question::Read(path) => format!("read {path}"),
        Question::List(path) => format!("list {path}"),
        Question::Resolve(path) => format!("resolve {path}"),
        Question::Ability(ability) => format!("ability {ability:?}"),
        other => panic!("{other:?} is not asked by these kinds"),
    };
    match view {
        View::Host => words,
        View::Job => format!("job: {words}"),
    }
}

/// The answers to everything `kind` asks: those of the entry that begins its words, and nothing is asked in vain.
pub(crate) fn answers(kind: &Kind, context: &Context, told: &[(&str, Answer)]) -> Answers {
    let asked = kind.questions(context);
    let answer = |(view, question): (View, Question)| {
        let words = words(view, &question);
        let found = told.iter().find(|(begin, _)| words.starts_with(begin));
        let (_, answer) = found.unwrap_or_else(|| panic!("`{}` asks `{words}`", kind.id()));
        ((view, question), answer.clone())
    };
    Answers::new(asked.into_iter().map(answer))
}

/// The verdict in words: its name, and what it says.
pub(crate) fn verdict(kind: &Kind, context: &Context, told: &[(&str, Answer)]) -> String {
    let verdict = kind.judge(context, &answers(kind, context, told));
    format!("{}: {verdict}", verdict.name())
}

/// What would help, one line each: `+` and what is done, `-` and what takes it back, `?` and what is left to people.
pub(crate) fn fix(kind: &Kind, context: &Context, told: &[(&str, Answer)]) -> Vec<String> {
    let answers = answers(kind, context, told);
    let verdict = kind.judge(context, &answers);
    match kind.fix(context, &answers, &verdict) {
        Fix::Nothing => vec![],
        Fix::ByHand(what) => vec![format!("? {what}")],
        Fix::Steps(steps) => {
            assert!(!steps.is_empty(), "no steps for `{}`: {verdict}", kind.id());
            let line = |step: ephemerd::provision::step::Step| {
                let action = match &step.action {
                    Action::File {
                        place,
                        content: Some(content),
                    } => format!("write {place}: {content:?}"),
                    other => other.to_string(),
                };
                let undo = step.undo.map(|tool| format!("- {tool}"));
                std::iter::once(format!("+ {action}")).chain(undo)
            };
            steps.into_iter().flat_map(line).collect()
        }
    }
}

/// Answers that tell nothing, whatever was asked.
pub(crate) fn useless() -> Vec<Answer> {
    let ran = |code, stdout: &str, stderr: &str| {
        Answer::Ran(Ran {
            code,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        })
    };
    let garbage = fixture("garbage");
    vec![
        Answer::TimedOut,
        Answer::Denied,
        Answer::Failed("no such device".to_owned()),
        ran(Some(0), "", ""),
        ran(Some(0), &garbage, ""),
        ran(Some(1), &garbage, &garbage),
        ran(Some(127), "", "not found"),
        ran(None, "", ""),
    ]
}

/// Asserts that no single useless answer to what `kind` asks makes it met, unless the question begins with one of
/// `idle`, which decide nothing here.
pub(crate) fn assert_every_answer_counts(
    kind: &Kind,
    context: &Context,
    told: &[(&str, Answer)],
    idle: &[&str],
) {
    let good = answers(kind, context, told);
    assert!(
        kind.judge(context, &good).is_met(),
        "{}",
        verdict(kind, context, told)
    );
    for (view, question) in kind.questions(context) {
        let words = words(view, &question);
        if idle.iter().any(|begin| words.starts_with(begin)) {
            continue;
        }
        for answer in useless() {
            // Where an exit code is the whole answer, what is printed does not count.
            let by_code = words.starts_with("xcodebuild -license")
                || words.starts_with("xcodebuild -check")
                || words.contains("arch -x86_64");
            if by_code && matches!(&answer, Answer::Ran(ran) if ran.code == Some(0)) {
                continue;
            }
            let mut all = good.clone();
            all.extend(Answers::new([((view, question.clone()), answer.clone())]));
            let verdict = kind.judge(context, &all);
            assert!(
                !verdict.is_met(),
                "`{}` is met by {answer:?} to `{words}`: {verdict:?}",
                kind.id()
            );
            if matches!(answer, Answer::TimedOut | Answer::Failed(_)) {
                assert!(
                    matches!(verdict, Verdict::Unknown { .. }),
                    "`{}` is {verdict:?} after {answer:?} to `{words}`",
                    kind.id()
                );
            }
        }
    }
}
