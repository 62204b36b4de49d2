//! Reports as text, JUnit's XML and Markdown.

use std::fmt::Write as _;

use super::ReportFormat;
use crate::provision::Verdict;
use crate::provision::report::{Line, Report, Standing};

/// A report as it is printed, with a newline at its end.
pub(crate) fn rendered(report: &Report, format: ReportFormat) -> Result<String, serde_json::Error> {
    Ok(match format {
        ReportFormat::Text => text(report),
        ReportFormat::Json => serde_json::to_string_pretty(report)? + "\n",
        ReportFormat::Junit => junit(report),
        ReportFormat::Markdown => markdown(report),
    })
}

/// Items in groups of their sections, each with its verdict, and below it what would help. What does not count here is
/// only counted.
fn text(report: &Report) -> String {
    let mut out = String::new();
    let counts = |line: &&Line| !matches!(line.verdict, Verdict::NotHere { .. });
    let width = report
        .items
        .iter()
        .filter(counts)
        .map(|line| line.verdict.name().len())
        .max()
        .unwrap_or_default();
    let mut section = None;
    for line in report.items.iter().filter(counts) {
        if section != Some(&line.section) {
            let gap = if section.is_some() { "\n" } else { "" };
            let _ = writeln!(out, "{gap}{}", line.section);
            section = Some(&line.section);
        }
        let _ = writeln!(
            out,
            "  {:<width$}  {}: {}",
            line.verdict.name(),
            line.name,
            line.verdict
        );
        if !line.verdict.is_met() {
            let _ = writeln!(out, "  {:width$}  because {}", "", line.because);
            for fix in &line.fix {
                let _ = writeln!(out, "  {:width$}  fix: {fix}", "");
            }
        }
    }
    let _ = writeln!(out, "\n{}", summary(report));
    out
}

/// One sentence about the whole.
fn summary(report: &Report) -> String {
    let not_here = report.count(|verdict| matches!(verdict, Verdict::NotHere { .. }));
    let ok = report.count(|verdict| matches!(verdict, Verdict::Ok { .. }));
    let unknown = report.count(|verdict| matches!(verdict, Verdict::Unknown { .. }));
    let all = report.items.len() - not_here;
    let verdict = match report.standing {
        Standing::Met => "met",
        Standing::NotMet => "not met",
        Standing::CannotTell => "cannot tell",
    };
    let mut text = format!(
        "{}: {verdict}, {ok} of {all} items are as they must be",
        report.manifest
    );
    if unknown > 0 {
        let _ = write!(text, ", {unknown} cannot be told");
    }
    if not_here > 0 {
        let _ = write!(text, ", {not_here} more do not count here");
    }
    text
}

/// One test case per item, in suites of their sections.
fn junit(report: &Report) -> String {
    let (failures, errors, skipped) = numbers(&report.items.iter().collect::<Vec<_>>());
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\">",
        xml(&report.manifest),
        report.items.len()
    );
    for suite in report.items.chunk_by(|a, b| a.section == b.section) {
        let (failures, errors, skipped) = numbers(&suite.iter().collect::<Vec<_>>());
        let section = suite.first().map_or("", |line| line.section.as_str());
        let _ = writeln!(
            out,
            "  <testsuite name=\"{section}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\">",
            suite.len()
        );
        for line in suite {
            let _ = write!(
                out,
                "    <testcase classname=\"{}.{section}\" name=\"{}\"",
                xml(&report.manifest),
                xml(&line.name)
            );
            let told = xml(&format!("{}: {}", line.verdict.name(), line.verdict));
            let body = xml(&[vec![line.because.clone()], line.fix.clone()].concat().join("\n"));
            let _ = match &line.verdict {
                Verdict::Ok { .. } => writeln!(out, "/>"),
                Verdict::NotHere { .. } => writeln!(out, "><skipped message=\"{told}\"/></testcase>"),
                Verdict::Unknown { .. } => {
                    writeln!(out, "><error message=\"{told}\">{body}</error></testcase>")
                }
                Verdict::Missing
                | Verdict::Outdated { .. }
                | Verdict::Wrong { .. }
                | Verdict::Hidden { .. } => {
                    writeln!(out, "><failure message=\"{told}\">{body}</failure></testcase>")
                }
            };
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Items that are not met, that cannot be told, and that do not count.
fn numbers(lines: &[&Line]) -> (usize, usize, usize) {
    let count = |counts: fn(&Verdict) -> bool| lines.iter().filter(|line| counts(&line.verdict)).count();
    let unknown = count(|verdict| matches!(verdict, Verdict::Unknown { .. }));
    let not_here = count(|verdict| matches!(verdict, Verdict::NotHere { .. }));
    (count(|verdict| !verdict.is_met()) - unknown, unknown, not_here)
}

/// `text` so that XML takes it as text, also in an attribute; what XML has no way to write is left out.
fn xml(text: &str) -> String {
    let escaped = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\n' => "&#10;".to_owned(),
        c if c.is_control() => String::new(),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// A table of everything that is not as it must be, and the summary.
fn markdown(report: &Report) -> String {
    let mut out = format!("### {}\n", summary(report));
    let lacking: Vec<&Line> = report
        .items
        .iter()
        .filter(|line| !line.verdict.is_met())
        .collect();
    if lacking.is_empty() {
        return out;
    }
    out.push_str("\n| item | verdict | found | because | fix |\n|---|---|---|---|---|\n");
    for line in lacking {
        let fix: Vec<String> = line.fix.iter().map(|fix| format!("`{}`", cell(fix))).collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            cell(&line.id()),
            line.verdict.name(),
            cell(&line.verdict.to_string()),
            cell(&line.because),
            fix.join("<br>")
        );
    }
    out
}

/// `text` as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '`'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::manifest::Origin;

    fn report() -> Report {
        let line = |section: &str, name: &str, verdict, fix: &[&str]| Line {
            section: section.to_owned(),
            name: name.to_owned(),
            verdict,
            because: format!("of <{name}> & \"others\""),
            origin: Origin {
                file: "m.toml".to_owned(),
                line: 3,
            },
            fix: fix.iter().map(|text| (*text).to_owned()).collect(),
        };
        let items = vec![
            line("apt", "git", Verdict::ok("2.39.5"), &[]),
            line("apt", "jq", Verdict::Missing, &["/usr/bin/apt-get install jq"]),
            line(
                "command",
                "cmake",
                Verdict::outdated("3.9", ">=3.20"),
                &["update it"],
            ),
            line("command", "a|b", Verdict::unknown("it did not\nanswer"), &["see"]),
            line(
                "command",
                "brew",
                Verdict::NotHere {
                    why: "for macos".to_owned(),
                },
                &[],
            ),
        ];
        Report {
            version: 1,
            manifest: "m.toml".to_owned(),
            digest: "00".to_owned(),
            standing: Standing::NotMet,
            items,
        }
    }

    #[test]
    fn text_groups_items_and_says_what_would_help() {
        insta::assert_snapshot!(rendered(&report(), ReportFormat::Text).unwrap(), @r#"
        apt
          ok        git: 2.39.5
          missing   jq: not there
                    because of <jq> & "others"
                    fix: /usr/bin/apt-get install jq

        command
          outdated  cmake: found 3.9, wanted >=3.20
                    because of <cmake> & "others"
                    fix: update it
          unknown   a|b: it did not answer
                    because of <a|b> & "others"
                    fix: see

        m.toml: not met, 1 of 4 items are as they must be, 1 cannot be told, 1 more do not count here
        "#);
    }

    #[test]
    fn junit_escapes_and_counts() {
        insta::assert_snapshot!(rendered(&report(), ReportFormat::Junit).unwrap(), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="m.toml" tests="5" failures="2" errors="1" skipped="1">
          <testsuite name="apt" tests="2" failures="1" errors="0" skipped="0">
            <testcase classname="m.toml.apt" name="git"/>
            <testcase classname="m.toml.apt" name="jq"><failure message="missing: not there">of &lt;jq&gt; &amp; &quot;others&quot;&#10;/usr/bin/apt-get install jq</failure></testcase>
          </testsuite>
          <testsuite name="command" tests="3" failures="1" errors="1" skipped="1">
            <testcase classname="m.toml.command" name="cmake"><failure message="outdated: found 3.9, wanted &gt;=3.20">of &lt;cmake&gt; &amp; &quot;others&quot;&#10;update it</failure></testcase>
            <testcase classname="m.toml.command" name="a|b"><error message="unknown: it did not answer">of &lt;a|b&gt; &amp; &quot;others&quot;&#10;see</error></testcase>
            <testcase classname="m.toml.command" name="brew"><skipped message="not here: for macos"/></testcase>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn markdown_tells_what_is_lacking() {
        insta::assert_snapshot!(rendered(&report(), ReportFormat::Markdown).unwrap(), @r#"
        ### m.toml: not met, 1 of 4 items are as they must be, 1 cannot be told, 1 more do not count here

        | item | verdict | found | because | fix |
        |---|---|---|---|---|
        | apt jq | missing | not there | of <jq> & "others" | `/usr/bin/apt-get install jq` |
        | command cmake | outdated | found 3.9, wanted >=3.20 | of <cmake> & "others" | `update it` |
        | command a\|b | unknown | it did not answer | of <a\|b> & "others" | `see` |
        "#);
    }

    #[test]
    fn json_is_read_back_as_it_was() {
        let text = rendered(&report(), ReportFormat::Json).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
    }
}
