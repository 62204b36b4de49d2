//! Two configurations compared, key by key as `config show` has them, and the one that may be put in place of the first
//! while the daemon runs: new values where they apply at once, old ones where they wait for a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::keys::{self, Class};
use super::show::{Row, rows};
use super::{Acquire, Config, ConfigError, GitHub, Loaded, Serves, parse};

/// A key that another value stands at, or none any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The dotted key.
    pub key: String,
    /// What is in force, as TOML; `None` when the key is new.
    pub old: Option<String>,
    /// What the file says, as TOML; `None` when it says nothing any more.
    pub new: Option<String>,
    /// When it applies.
    pub applies: Applies,
}

/// When a change applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applies {
    /// At once.
    AtOnce,
    /// At the next start of the daemon; until then the old value stays.
    AtNextStart,
}

/// Why what applies at once cannot be put in force without the rest.
#[derive(Debug, thiserror::Error)]
#[error(
    "what applies at once does not go with what is in force until a restart: {0}\nhint: drain and restart the daemon, which then reads all of it"
)]
pub struct Apart(String);

/// Every key at which `new` differs from `old`, in the order of the documentation; what is gone comes last.
pub fn diff(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let (before, after) = (rows(old), rows(new));
    let was: BTreeMap<&str, &Row> = before.iter().map(|row| (row.key.as_str(), row)).collect();
    let change = |row: &Row, old_value: Option<&Row>, new_value: Option<&Row>| Change {
        key: row.key.clone(),
        old: old_value.map(|row| row.value.clone()),
        new: new_value.map(|row| row.value.clone()),
        applies: applies(row, &old.config, &new.config),
    };
    let differs = after.iter().filter_map(|row| {
        let old_row = was.get(row.key.as_str()).copied();
        let is_same = old_row.is_some_and(|old| old.value == row.value);
        (!is_same).then(|| change(row, old_row, Some(row)))
    });
    let gone = before
        .iter()
        .filter(|row| after.iter().all(|new| new.key != row.key))
        .map(|row| change(row, Some(row), None));
    differs.chain(gone).collect()
}

/// `new` as far as it applies at once, and `old` as for the rest.
///
/// # Errors
/// The two contradict each other.
pub fn merged(old: &Loaded, new: &Loaded) -> Result<Loaded, Apart> {
    if diff(old, new).iter().all(|it| it.applies == Applies::AtOnce) {
        return Ok(new.clone());
    }
    let of = |loaded: &Loaded, wanted: Applies| {
        let rows = rows(loaded).into_iter();
        lines(rows.filter(|row| applies(row, &old.config, &new.config) == wanted))
    };
    // What is shown reads back as the same, so that what may not stand together is found by who finds it in a file.
    let text = of(old, Applies::AtNextStart) + &of(new, Applies::AtOnce);
    let read = parse(&text, &new.file).map_err(|error| match error {
        ConfigError::Invalid { problems, .. } => {
            let all: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            Apart(all.join("\n"))
        }
        ConfigError::Read { .. } => Apart(error.to_string()),
    })?;
    Ok(Loaded {
        config: read.config,
        file: new.file.clone(),
        origins: new.origins.clone(),
    })
}

/// A configuration as text that reads back as the same, whatever file it came from.
pub fn text(loaded: &Loaded) -> String {
    lines(rows(loaded).into_iter())
}

fn lines(rows: impl Iterator<Item = Row>) -> String {
    rows.map(|row| format!("{} = {}\n", row.key, row.value)).collect()
}

/// When another value in a row applies.
fn applies(row: &Row, old: &Config, new: &Config) -> Applies {
    let path: Vec<&str> = row.path.iter().map(String::as_str).collect();
    let Some(key) = keys::find(&path) else {
        return Applies::AtNextStart;
    };
    // Who asks GitHub is made at the start.
    let asks = old.github.as_ref().zip(new.github.as_ref());
    let is_asked = asks.is_some() || !key.name.starts_with("github.");
    let is_polled = |(old, new): (&GitHub, &GitHub)| {
        old.acquire == Acquire::Poll && organisation(old) == organisation(new)
    };
    let is_at_once = match key.class() {
        Class::Reload => is_asked,
        Class::ReloadWhilePolling => asks.is_some_and(is_polled),
        Class::Restart => false,
    };
    if is_at_once {
        Applies::AtOnce
    } else {
        Applies::AtNextStart
    }
}

fn organisation(github: &GitHub) -> Option<&str> {
    match &github.serves {
        Serves::Repos(_) => None,
        Serves::Org { org, .. } => Some(org),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Loaded {
        parse(text, "e.toml").unwrap()
    }

    /// The changes as lines, those that wait with a `*`.
    fn lines(old: &str, new: &str) -> String {
        let line = |change: Change| {
            let mark = match change.applies {
                Applies::AtOnce => " ",
                Applies::AtNextStart => "*",
            };
            let side = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            format!(
                "{mark} {}: {} > {}\n",
                change.key,
                side(change.old),
                side(change.new)
            )
        };
        diff(&read(old), &read(new)).into_iter().map(line).collect()
    }

    const GITHUB: &str = "[github]\nlabels = [\"eph\"]\ntoken_file = \"/t\"\n";

    #[test]
    fn what_differs_is_named_with_both_values_and_when_it_applies() {
        let old = "native.slots = 2\nnative.env.A = \"1\"\nrepos.\"a/b\".posture = \"strict\"\ntrust.repos.\"a/*\" = \"native\"\n";
        let new = "native.slots = 3\nnative.env.B = \"2\"\nnative.job_timeout = \"1h\"\nrepos.\"a/b\" = {}\n\
                   trust.repos.\"a/*\" = { route = \"native\", require_label = \"ci\" }\ncontrol.listen = \"127.0.0.1:9123\"\n";
        insta::assert_snapshot!(lines(old, new), @r#"
        * native.slots: 2 > 3
          native.job_timeout: "2h" > "1h"
          native.env.B: - > "2"
          trust.repos."a/*": "native" > { route = "native", require_label = "ci" }
          repos."a/b": - > {}
        * egress.protect_local_ports: [22, 88, 445, 548, 3283, 5900] > [22, 88, 445, 548, 3283, 5900, 9123]
        * control.listen: - > "127.0.0.1:9123"
          native.env.A: "1" > -
          repos."a/b".posture: "strict" > -
        "#);
        assert_eq!(lines(new, new), "");
    }

    #[test]
    fn where_a_value_stands_makes_no_difference() {
        assert_eq!(lines("native.slots = 4\n", "\n\n[native]\n"), "");
    }

    #[test]
    fn what_waits_keeps_its_old_value_and_the_rest_is_new() {
        let old = read("native.slots = 2\nnative.job_timeout = \"1h\"\negress.mode = \"offline\"\n");
        let new = read("native.slots = 3\nnative.job_timeout = \"3h\"\nprune.jobs = 7\n");
        let merged = merged(&old, &new).unwrap();
        let expected = read(
            "native.slots = 2\nnative.job_timeout = \"3h\"\nprune.jobs = 7\negress.mode = \"offline\"\n",
        );
        assert_eq!(merged.config, expected.config);
        // What was put off is still seen, and what applied is not.
        let left: Vec<String> = diff(&merged, &new).into_iter().map(|it| it.key).collect();
        assert_eq!(left, ["native.slots", "egress.mode"]);
    }

    #[test]
    fn everything_that_can_be_said_survives_being_put_together() {
        let full = format!(
            "{}[github]\nrepos = [\"acme/ios\"]\nlabels = [\"eph\"]\ntoken_file = \"/t\"\nwebhook_listen = \"127.0.0.1:9000\"\n\
             webhook_secret = \"/s\"\n[vm]\nuser = \"ci\"\n[vm.backends.t]\npreset = \"tart\"\nimage = \"i\"\n",
            "[trust.repos]\n\"acme/ios\" = { route = \"vm\", backend = \"t\" }\n[repos.\"acme/ios\"]\nenv = { A = \"1\" }\n"
        );
        let (old, new) = (read(&full), read(&format!("native.slots = 3\n{full}")));
        assert_eq!(merged(&old, &new).unwrap().config, old.config);
        assert_eq!(merged(&new, &old).unwrap().config, new.config);
    }

    #[test]
    fn what_cannot_be_put_in_force_without_a_restart_is_refused_whole() {
        let old = read("");
        let new = read(
            "trust.repos.\"a/b\" = { route = \"vm\", backend = \"t\" }\n[vm.backends.t]\npreset = \"tart\"\nimage = \"i\"\n",
        );
        let refused = merged(&old, &new).unwrap_err().to_string();
        assert!(
            refused.contains("`t`") && refused.contains("restart"),
            "{refused}"
        );
    }

    #[test]
    fn repositories_and_labels_apply_at_once_where_github_is_polled() {
        let one = format!("{GITHUB}repos = [\"a/b\"]\n");
        let two = format!("{GITHUB}repos = [\"a/c\"]\npoll = \"9s\"\n").replace("eph", "new");
        let set = |text: &str| format!("{text}acquire = \"scale-set\"\n");
        insta::assert_snapshot!(lines(&one, &two), @r#"
          github.repos: ["a/b"] > ["a/c"]
          github.labels: ["eph"] > ["new"]
          github.poll: "10s" > "9s"
        "#);
        insta::assert_snapshot!(lines(&set(&one), &set(&two)), @r#"
        * github.repos: ["a/b"] > ["a/c"]
        * github.labels: ["eph"] > ["new"]
          github.poll: "10s" > "9s"
        "#);
    }

    #[test]
    fn an_organisation_or_github_itself_comes_and_goes_with_a_restart() {
        let repos = format!("{GITHUB}repos = [\"a/b\"]\n");
        let org = format!("{GITHUB}org = \"a\"\nrepos = [\"a/c\"]\npoll = \"9s\"\n");
        insta::assert_snapshot!(lines(&repos, &org), @r#"
        * github.repos: ["a/b"] > ["a/c"]
        * github.org: - > "a"
          github.poll: "10s" > "9s"
        "#);
        for (old, new) in [("", repos.as_str()), (repos.as_str(), "")] {
            assert!(lines(old, new).lines().all(|line| line.starts_with('*')));
            assert_eq!(merged(&read(old), &read(new)).unwrap().config, read(old).config);
        }
    }
}
