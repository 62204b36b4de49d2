//! Who is logged in, who can, and what macOS lets them see.

use super::{Asked, Found};
use crate::provision::context::Context;
use crate::provision::question::{Question, Ran, Tool, shortened};
use crate::provision::step::{Fix, Step};

/// What `defaults read` says of one key: its value, or that it has none.
pub(super) fn value(ran: &Ran) -> Result<Option<String>, String> {
    match ran.code {
        Some(0) if !ran.stdout.trim().is_empty() => Ok(Some(ran.stdout.trim().to_owned())),
        // "The domain/default pair of (…, autoLoginUser) does not exist"
        Some(1) if ran.stderr.contains("does not exist") => Ok(None),
        _ => Err(format!("defaults: {}", ran.ending())),
    }
}

/// Whether somebody is logged in as soon as the host starts.
pub(super) mod auto_login {
    use super::*;
    use crate::provision::kind::command::said;
    use crate::provision::question::Answer;

    const DOMAIN: &str = "/Library/Preferences/com.apple.loginwindow";
    const KEY: &str = "autoLoginUser";

    /// That account's password, in a form that anybody who reads it can undo.
    const PASSWORD: &str = "/etc/kcpassword";

    fn tool(context: &Context) -> Tool {
        Tool::at(&context.host.mac.defaults, &["read", DOMAIN, KEY])
    }

    fn password() -> Question {
        Question::Look {
            path: PASSWORD.into(),
            digest: false,
        }
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        vec![Question::Run(tool(context)), password()]
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        let user = value(&asked.ran(&tool(asked.context))?)?;
        match (user, asked.get(&password())) {
            (Some(user), _) => Ok(Found::switch(true, format!("as `{}`", shortened(&user)))),
            (None, Answer::Missing) => Ok(Found::switch(false, "nobody")),
            (None, Answer::Entry(_)) => Ok(Found::neither(format!("nobody, but a password in {PASSWORD}"))),
            (None, other) => Err(format!("{PASSWORD}: {}", said(&other))),
        }
    }

    pub(in super::super) fn fix(on: bool, asked: &Asked<'_>) -> Fix {
        let user = asked.ran(&tool(asked.context)).and_then(|ran| value(&ran));
        match (on, user, asked.get(&password())) {
            (false, Ok(Some(user)), Answer::Missing) => {
                let defaults = |args: &[&str]| Tool::at(&asked.context.host.mac.defaults, args);
                Fix::Steps(vec![Step::undone_by(
                    defaults(&["delete", DOMAIN, KEY]),
                    defaults(&["write", DOMAIN, KEY, &user]),
                )])
            }
            // Nothing could bring the password back.
            (false, ..) => Fix::ByHand(
                "System Settings → Users & Groups → Automatically log in as: Off, or: sudo sysadminctl -autologin off"
                    .to_owned(),
            ),
            (true, ..) => Fix::ByHand("System Settings → Users & Groups → Automatically log in as".to_owned()),
        }
    }
}

/// Whether people can log in over the network.
pub(super) mod remote {
    use super::*;

    fn tool(context: &Context) -> Tool {
        Tool::at(&context.host.mac.systemsetup, &["-getremotelogin"])
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        vec![Question::Run(tool(context))]
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        super::super::updates::on_or_off(&asked.ran(&tool(asked.context))?, "Remote Login:")
    }

    pub(in super::super) fn fix(on: bool) -> Fix {
        // Whoever does this over SSH may be locked out by it.
        let value = if on { "on" } else { "off" };
        Fix::ByHand(format!(
            "System Settings → General → Sharing → Remote Login, or: sudo systemsetup -setremotelogin {value}"
        ))
    }
}

/// Whether somebody is signed in to iCloud, on whose behalf files and keys would leave the host.
pub(super) mod icloud {
    use super::*;

    const DOMAIN: &str = "MobileMeAccounts";
    const KEY: &str = "Accounts";

    /// Asks for everybody who has a home below `$2`; `$1` is defaults(1). A last line says that it came to its end.
    const EVERYBODY: &str = r#"
for file in "$2"/*/Library/Preferences/MobileMeAccounts.plist; do
    [ -e "$file" ] || continue
    if text=$("$1" read "${file%.plist}" Accounts 2>&1); then
        case $(printf %s "$text" | tr -d '[:space:]') in
            *AccountID*) echo "in $file" ;;
            '()') echo "out $file" ;;
            *) echo "unclear $file" ;;
        esac
    else
        case $text in
            *'does not exist'*) echo "out $file" ;;
            *) echo "unclear $file" ;;
        esac
    fi
done
echo end
"#;

    /// Whoever asks.
    fn own(context: &Context) -> Tool {
        Tool::at(&context.host.mac.defaults, &["read", DOMAIN, KEY])
    }

    fn everybody(context: &Context) -> Tool {
        let defaults = context.host.mac.defaults.as_str();
        Tool::at("/bin/sh".into(), &["-c", EVERYBODY, "sh", defaults, "/Users"])
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        vec![Question::Run(own(context)), Question::Run(everybody(context))]
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        if let Some(text) = value(&asked.ran(&own(asked.context))?)? {
            let squeezed: String = text.split_whitespace().collect();
            match squeezed.as_str() {
                "()" => {}
                text if text.contains("AccountID") => {
                    return Ok(Found::switch(true, "whoever checks is signed in"));
                }
                _ => return Err(format!("defaults says `{}`", shortened(&text))),
            }
        }
        let ran = asked.ran(&everybody(asked.context))?;
        let mut lines: Vec<&str> = ran.stdout.lines().collect();
        if ran.code != Some(0) || lines.pop() != Some("end") {
            return Err(ran.ending());
        }
        let mut signed_in = vec![];
        for line in lines {
            match line.split_once(' ') {
                Some(("in", file)) => signed_in.push(file.split('/').nth(2).unwrap_or(file)),
                Some(("out", _)) => {}
                _ => return Err(format!("defaults cannot read `{}`", shortened(line))),
            }
        }
        if !signed_in.is_empty() {
            return Ok(Found::switch(
                true,
                format!("signed in: {}", signed_in.join(", ")),
            ));
        }
        if !asked.context.root {
            return Err("only root sees who is signed in".to_owned());
        }
        Ok(Found::switch(false, "nobody is signed in"))
    }

    pub(in super::super) fn fix(on: bool) -> Fix {
        let verb = if on { "Sign in" } else { "Sign Out" };
        Fix::ByHand(format!(
            "System Settings → the account at the top → {verb}, as every user who is named"
        ))
    }
}

/// Whether macOS lets what runs jobs see what it protects (TCC): Full Disk Access above all.
pub(super) mod grants {
    use super::*;

    /// The grants for the whole host.
    const DATABASE: &str = "/Library/Application Support/com.apple.TCC/TCC.db";

    /// The number of rows comes first, so that an answer that breaks off is not taken for a short one.
    const QUERY: &str =
        "SELECT 'rows', count(*) FROM access; SELECT service, client, auth_value FROM access;";

    /// What `auth_value` is where it was denied (observed values: 0 denied, 1 unknown, 2 allowed, 3 limited).
    const DENIED: &str = "0";

    /// Programs of the system: a grant is looked up for the program that is responsible for a process, and for jobs that
    /// is ephemerd, never one of these.
    const OF_SYSTEM: [&str; 2] = ["/System/", "/usr/libexec/"];

    fn tool(context: &Context) -> Tool {
        Tool::at(
            &context.host.mac.sqlite3,
            &["-readonly", "-batch", "-list", "-noheader", DATABASE, QUERY],
        )
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        vec![Question::Run(tool(context))]
    }

    /// Whether processes of jobs could use a grant of `client`: ephemerd's, by whatever name, and those of programs by
    /// their paths. Grants by bundle identifier are of applications that people start.
    fn concerns_jobs(client: &str) -> bool {
        let of_system = OF_SYSTEM.iter().any(|prefix| client.starts_with(prefix));
        client.contains("ephemerd") || (client.starts_with('/') && !of_system)
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        let ran = asked.ran(&tool(asked.context))?;
        if ran.code != Some(0) {
            let denied = ran.stderr.contains("authorization denied") || ran.stderr.contains("unable to open");
            return Err(if denied {
                "only a program with Full Disk Access can read the grants; check from a Terminal that has it"
                    .to_owned()
            } else {
                ran.ending()
            });
        }
        let unclear = |line: &str| format!("sqlite3 says `{}`", shortened(line));
        let mut lines = ran.stdout.lines();
        let first = lines.next().unwrap_or_default();
        let count: usize = first
            .strip_prefix("rows|")
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| unclear(first))?;
        let (mut rows, mut granted) = (0, vec![]);
        for line in lines {
            let row = line.split_once('|').and_then(|(service, rest)| {
                let (client, value) = rest.rsplit_once('|')?;
                value.parse::<u8>().ok().map(|_| (service, client, value))
            });
            let (service, client, value) = row.ok_or_else(|| unclear(line))?;
            rows += 1;
            if value != DENIED && concerns_jobs(client) {
                granted.push(format!("{client} has {service}"));
            }
        }
        if rows != count {
            return Err(format!("sqlite3 told {rows} of {count} grants"));
        }
        Ok(if granted.is_empty() {
            Found::switch(false, "none that jobs could use")
        } else {
            Found::switch(true, granted.join(", "))
        })
    }

    pub(in super::super) fn fix(on: bool) -> Fix {
        let what = if on { "add" } else { "switch off" };
        Fix::ByHand(format!(
            "System Settings → Privacy & Security → Full Disk Access and its neighbours: {what} what is named"
        ))
    }
}
