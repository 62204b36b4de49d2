//! Stand-in for sandbox-exec(1) on Linux: refuses what the real one refuses, models denied reads with Landlock, and
//! runs the command.
//!
//! - A profile that macOS 26 would not compile ends it with 65.
//! - A sandbox does not nest: the second one ends with 71.
//! - A program that cannot be executed ends it with 71, too, in other words.
//!
//! Only what a rule denies by name is closed. What a profile denies by default stays open, because the places it
//! lists instead are those of macOS, and nothing would run. Writing is not modelled. Neither is listing, where a folder
//! may be listed whose content is closed: Landlock gives both or none.
//!
//! `state/sandbox` beside the folder of this program makes it misbehave once it is given a file: `pretend` runs the
//! command unconfined, `pretend-dispatcher` the dispatcher alone, `older` knows no more than macOS 10.15, `nested` takes itself to be in a sandbox.

#[cfg(target_os = "linux")]
fn main() {
    std::process::exit(linux::run());
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("sandbox-exec: this stand-in is for Linux");
    std::process::exit(64);
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;
    use std::ffi::CString;
    use std::fs;
    use std::io::{ErrorKind, Write};

    use camino::{Utf8Path, Utf8PathBuf};
    use ephemerd::profile::decide::Verdict;
    use ephemerd::profile::sbpl::vocabulary::Vocabulary;
    use ephemerd::profile::sbpl::{Release, Ruleset, Semantics, Settings, Target, compile};
    use landlock::{
        ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset as Landlock, RulesetAttr,
        RulesetCreated, RulesetCreatedAttr,
    };

    const USAGE: i32 = 64;
    const BAD_DATA: i32 = 65;
    const OS_ERROR: i32 = 71;

    pub(crate) fn run() -> i32 {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let state = state();
        note(&state, &args);
        let [option, profile, command @ ..] = args.as_slice() else {
            return refuse(USAGE, "Usage: sandbox-exec [options] command [args]");
        };
        let text = match option.as_str() {
            "-p" => profile.clone().into_bytes(),
            "-f" => match fs::read(profile) {
                Ok(text) => text,
                Err(error) => return refuse(BAD_DATA, &format!("{profile}: {error}")),
            },
            _ => return refuse(USAGE, "Usage: sandbox-exec [options] command [args]"),
        };
        let mode = fs::read_to_string(state.join("sandbox")).unwrap_or_default();
        // Jobs have their profiles in files, and what is tried, or faces the network, has not.
        let mode = match option.as_str() {
            "-f" => mode.as_str(),
            _ if mode == "pretend-dispatcher" && command.iter().any(|word| word == "__dispatch") => "pretend",
            _ => "",
        };
        let release = match mode {
            "older" => Release::MacOs10_15,
            _ => Release::NEWEST,
        };
        let rules = match compile(profile, &text, &Settings::new(release)) {
            Ok(rules) => rules,
            Err(problems) => return refuse(BAD_DATA, &problems.to_string()),
        };
        let mark = state.join("unconfined");
        let is_marked = matches!(fs::read(&mark), Err(error) if error.kind() == ErrorKind::PermissionDenied);
        if is_marked || mode == "nested" {
            return refuse(OS_ERROR, "sandbox_apply: Operation not permitted");
        }
        if mode != "pretend" {
            confine(&rules, &String::from_utf8_lossy(&text), &mark);
        }
        let error = execute(command);
        refuse(OS_ERROR, &format!("execvp() of '{}' failed: {error}", command[0]))
    }

    fn state() -> Utf8PathBuf {
        let own = Utf8PathBuf::try_from(std::env::current_exe().expect("a path")).expect("UTF-8");
        own.ancestors().nth(2).expect("a folder above bin").join("state")
    }

    fn note(state: &Utf8Path, args: &[String]) {
        let mut call = vec!["sandbox-exec".to_owned()];
        call.extend_from_slice(args);
        let line = serde_json::to_string(&call).expect("JSON") + "\n";
        let mut calls = fs::File::options()
            .append(true)
            .open(state.join("calls"))
            .expect("the log of calls");
        calls.write_all(line.as_bytes()).expect("a line in the log");
    }

    fn refuse(code: i32, why: &str) -> i32 {
        eprintln!("sandbox-exec: {why}");
        code
    }

    fn execute(command: &[String]) -> nix::errno::Errno {
        let args: Vec<CString> = command
            .iter()
            .map(|arg| CString::new(arg.as_str()).expect("no NUL"))
            .collect();
        match nix::unistd::execvp(&args[0], &args) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    /// Whether a rule closes `path` for reading; what is denied by default is not closed here.
    fn is_closed(rules: &Ruleset, path: &Utf8Path) -> bool {
        let vocabulary = Vocabulary::of(Release::NEWEST);
        let read = vocabulary.asked("file-read-data").expect("an operation");
        let target = if path.is_dir() {
            Target::folder(path.as_str())
        } else {
            Target::file(path.as_str())
        };
        let ruling = rules.decide(read, &target, &Semantics::of(Release::NEWEST));
        ruling.verdict == Verdict::Deny && ruling.at.is_some() && !ruling.rule.starts_with("(deny default")
    }

    /// Whether a folder may be listed whose content is closed.
    fn lists_alone(rules: &Ruleset, path: &Utf8Path) -> bool {
        path.is_dir() && !is_closed(rules, path) && is_closed(rules, &path.join("content"))
    }

    /// The paths a profile names that are on this system, where /tmp and /var are no links.
    fn named(text: &str) -> Vec<Utf8PathBuf> {
        text.split('"')
            .skip(1)
            .step_by(2)
            .filter(|word| word.starts_with('/'))
            .map(|word| Utf8PathBuf::from(word.strip_prefix("/private").unwrap_or(word)))
            .filter(|path| path.exists())
            .collect()
    }

    fn confine(rules: &Ruleset, text: &str, mark: &Utf8Path) {
        let mut closed: BTreeSet<Utf8PathBuf> = named(text)
            .into_iter()
            .filter(|path| is_closed(rules, path) || lists_alone(rules, path))
            .collect();
        let lists = closed.iter().any(|path| lists_alone(rules, path));
        closed.insert(mark.to_owned());
        // Inside of what is closed, some may be open again.
        let inside = named(text)
            .into_iter()
            .filter(|path| closed.iter().any(|above| path.starts_with(above)));
        let special: BTreeSet<Utf8PathBuf> = inside.chain(closed.iter().cloned()).collect();
        let mut all = AccessFs::from_all(ABI::V6);
        if lists {
            all.remove(AccessFs::ReadDir);
        }
        let ruleset = Landlock::default().handle_access(all).expect("access rights");
        let mut created = ruleset.create().expect("a ruleset");
        let is_open = |path: &Utf8Path| path != mark && !is_closed(rules, path) && !lists_alone(rules, path);
        created = cover(created, "/".into(), &special, (all, &is_open));
        created.restrict_self().expect("Landlock holds");
    }

    /// Says whether a path is open.
    type Opens<'a> = &'a dyn Fn(&Utf8Path) -> bool;

    /// Opens everything at and below `path` but for what is closed.
    fn cover(
        mut created: RulesetCreated,
        path: &Utf8Path,
        special: &BTreeSet<Utf8PathBuf>,
        (all, is_open): (BitFlags<AccessFs>, Opens<'_>),
    ) -> RulesetCreated {
        let status = path.symlink_metadata();
        if status.as_ref().map_or(true, |status| status.is_symlink()) {
            return created;
        }
        if special.iter().any(|one| one != path && one.starts_with(path)) {
            // What lies in a folder that cannot be listed is known by its name.
            let listed = path.read_dir_utf8().into_iter().flatten().flatten();
            let known = special.iter().filter_map(|one| {
                let next = one.strip_prefix(path).ok()?.components().next()?;
                Some(path.join(next))
            });
            let children: BTreeSet<Utf8PathBuf> =
                listed.map(|entry| entry.path().to_owned()).chain(known).collect();
            for child in children.iter().filter(|child| *child != path) {
                created = cover(created, child, special, (all, is_open));
            }
            return created;
        }
        let access = if path.is_dir() {
            all
        } else {
            AccessFs::from_file(ABI::V6)
        };
        match PathFd::new(path) {
            Ok(fd) if is_open(path) => created.add_rule(PathBeneath::new(fd, access)).expect("a rule"),
            _ => created,
        }
    }
}
