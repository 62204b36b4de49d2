//! Services of the system: systemd's units, and what launchd runs for everybody.

use camino::Utf8PathBuf;
use serde::Deserialize;

use super::command::said;
use crate::host::Os;
use crate::provision::Verdict;
use crate::provision::context::Context;
use crate::provision::question::{Answer, Answers, Question, Ran, Tool, View, shortened};
use crate::provision::step::{Fix, Step};

/// `[service.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Whether it must run, or must not.
    #[serde(default = "yes")]
    pub running: bool,
}

fn yes() -> bool {
    true
}

/// launchctl(1) says so where there is no such service (`launchctl error 113`).
const NO_SERVICE: i32 = 113;

/// How a service was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The system has none of that name, or launchd has not loaded it.
    None,
    /// It is there.
    There {
        /// Whether it runs.
        runs: bool,
        /// When it starts.
        starts: Starts,
    },
}

/// When a service starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    /// With the system; on macOS what is loaded does.
    WithSystem,
    /// When another needs it: nothing can enable or disable it.
    OnNeed,
    /// When somebody starts it.
    ByHand,
    /// Never: systemd refuses to start it.
    Masked,
}

impl Service {
    pub(super) fn complaint(&self, name: &str) -> Option<String> {
        // A name that begins like an option would be one.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"@._-:\\".contains(&b);
        let is_name =
            name.bytes().all(allowed) && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        (!is_name).then(|| {
            format!(
                "`{name}` is no name of a service\nhint: a unit of systemd, or the label of a job of launchd"
            )
        })
    }

    fn active(name: &str, context: &Context) -> Question {
        Question::Run(Tool::at(&context.host.tools.systemctl, &["is-active", name]))
    }

    fn enabled(name: &str, context: &Context) -> Question {
        Question::Run(Tool::at(&context.host.tools.systemctl, &["is-enabled", name]))
    }

    fn printed(name: &str, context: &Context) -> Question {
        Question::Run(Tool::at(
            &context.host.mac.launchctl,
            &["print", &format!("system/{name}")],
        ))
    }

    /// Where the job of launchd is described, unless it is one of Apple's.
    fn plist(name: &str) -> Utf8PathBuf {
        format!("/Library/LaunchDaemons/{name}.plist").into()
    }

    fn look(name: &str) -> Question {
        Question::Look {
            path: Self::plist(name),
            digest: false,
        }
    }

    pub(super) fn questions(&self, name: &str, context: &Context) -> Vec<(View, Question)> {
        let all = match context.os() {
            Os::Linux => [Self::active(name, context), Self::enabled(name, context)],
            Os::MacOs => [Self::printed(name, context), Self::look(name)],
        };
        all.into_iter().map(|question| (View::Host, question)).collect()
    }

    fn state(name: &str, context: &Context, answers: &Answers) -> Result<State, String> {
        let ran = |question: Question| match answers.get(View::Host, &question) {
            Answer::Ran(ran) => Ok(ran),
            other => Err(said(&other)),
        };
        match context.os() {
            Os::Linux => systemd(
                &ran(Self::active(name, context))?,
                &ran(Self::enabled(name, context))?,
            ),
            Os::MacOs => launchd(&ran(Self::printed(name, context))?),
        }
    }

    pub(super) fn judge(&self, name: &str, context: &Context, answers: &Answers) -> Verdict {
        let state = match Self::state(name, context, answers) {
            Ok(state) => state,
            Err(why) => return Verdict::unknown(why),
        };
        let found = state.shown();
        let (runs, starts) = match state {
            State::None if self.running && context.os() == Os::Linux => return Verdict::Missing,
            State::None if self.running => return Verdict::wrong(found, "running"),
            State::None => return Verdict::ok(found),
            State::There { runs, starts } => (runs, starts),
        };
        match (self.running, runs, starts) {
            (true, true, Starts::WithSystem | Starts::OnNeed) => Verdict::ok(found),
            (false, false, Starts::OnNeed | Starts::ByHand | Starts::Masked) => Verdict::ok(found),
            (true, ..) => Verdict::wrong(found, "running, and started with the system"),
            (false, ..) => Verdict::wrong(found, "not running, and not started with the system"),
        }
    }

    pub(super) fn fix(&self, name: &str, context: &Context, answers: &Answers, _verdict: &Verdict) -> Fix {
        let Ok(state) = Self::state(name, context, answers) else {
            return Fix::ByHand("see what keeps it from being asked".to_owned());
        };
        match context.os() {
            Os::Linux => self.by_systemctl(name, context, state),
            Os::MacOs => {
                let is_ours = matches!(answers.get(View::Host, &Self::look(name)), Answer::Entry(_));
                self.by_launchctl(name, context, state, is_ours)
            }
        }
    }

    fn by_systemctl(&self, name: &str, context: &Context, state: State) -> Fix {
        let State::There { runs, starts } = state else {
            return Fix::ByHand(format!("install what provides `{name}`"));
        };
        let tool = |args: &[&str]| Tool::at(&context.host.tools.systemctl, args);
        let pair = |args: &[&str], undo: &[&str]| Step::undone_by(tool(args), tool(undo));
        let mut steps = vec![];
        if self.running && starts == Starts::Masked {
            steps.push(pair(&["unmask", name], &["mask", name]));
        }
        let settled = match starts {
            Starts::OnNeed => true,
            Starts::WithSystem => self.running,
            Starts::ByHand | Starts::Masked => !self.running,
        };
        // Each step takes back no more than it did.
        steps.extend(match (self.running, runs, settled) {
            (true, false, false) => Some(pair(&["enable", "--now", name], &["disable", "--now", name])),
            (true, true, false) => Some(pair(&["enable", name], &["disable", name])),
            (true, false, true) => Some(pair(&["start", name], &["stop", name])),
            (false, true, false) => Some(pair(&["disable", "--now", name], &["enable", "--now", name])),
            (false, true, true) => Some(pair(&["stop", name], &["start", name])),
            (false, false, false) => Some(pair(&["disable", name], &["enable", name])),
            (true, true, true) | (false, false, true) => None,
        });
        Fix::Steps(steps)
    }

    fn by_launchctl(&self, name: &str, context: &Context, state: State, is_ours: bool) -> Fix {
        let tool = |args: &[&str]| Tool::at(&context.host.mac.launchctl, args);
        let (target, plist) = (format!("system/{name}"), Self::plist(name));
        let up = || tool(&["bootstrap", "system", plist.as_str()]);
        let down = || tool(&["bootout", &target]);
        let toggle = |on: bool| tool(&[if on { "enable" } else { "disable" }, &target]);
        match (self.running, state) {
            (true, State::There { .. }) => Fix::Steps(vec![Step::undone_by(
                tool(&["kickstart", &target]),
                tool(&["kill", "SIGTERM", &target]),
            )]),
            (_, _) if !is_ours => Fix::ByHand(format!(
                "there is no {plist}: see System Settings → General → Sharing, or: sudo launchctl {} {target}",
                if self.running { "enable" } else { "disable" }
            )),
            // What is disabled cannot be bootstrapped ("Bootstrap failed: 5").
            (true, State::None) => Fix::Steps(vec![Step::run(toggle(true)), Step::undone_by(up(), down())]),
            (false, _) => Fix::Steps(vec![
                Step::undone_by(toggle(false), toggle(true)),
                Step::undone_by(down(), up()),
            ]),
        }
    }
}

impl State {
    fn shown(self) -> String {
        match self {
            Self::None => "no such service".to_owned(),
            Self::There { runs, starts } => {
                let starts = match starts {
                    Starts::WithSystem => "started with the system",
                    Starts::OnNeed => "started when it is needed",
                    Starts::ByHand => "not started with the system",
                    Starts::Masked => "masked",
                };
                format!("{}, {starts}", if runs { "running" } else { "not running" })
            }
        }
    }
}

/// What `systemctl is-active` and `is-enabled` print, one word each (systemctl(1)).
fn systemd(active: &Ran, enabled: &Ran) -> Result<State, String> {
    let runs = match (active.code, active.stdout.trim()) {
        (Some(0), "active" | "reloading") => true,
        // 4 where there is no such unit, from some release on.
        (Some(3 | 4), "inactive" | "failed" | "activating" | "deactivating" | "unknown") => false,
        _ => return Err(format!("systemctl: {}", active.ending())),
    };
    let starts = match (enabled.code, enabled.stdout.trim()) {
        (Some(0), "enabled" | "enabled-runtime") => Starts::WithSystem,
        (Some(0), "static" | "alias" | "indirect" | "generated" | "transient") => Starts::OnNeed,
        (Some(1), "disabled" | "linked" | "linked-runtime") => Starts::ByHand,
        (Some(1), "masked" | "masked-runtime") => Starts::Masked,
        (Some(1 | 4), "not-found") => return Ok(State::None),
        // Older than that word: "Failed to get unit file state for X.service: No such file or directory".
        (Some(1), "") if enabled.stderr.contains("No such file or directory") => return Ok(State::None),
        _ => return Err(format!("systemctl: {}", enabled.ending())),
    };
    Ok(State::There { runs, starts })
}

/// What `launchctl print` says. Its manual calls the output no interface, so only lines of the first level are read; it
/// has values of variables too and is never quoted.
fn launchd(ran: &Ran) -> Result<State, String> {
    let output = format!("{}{}", ran.stdout, ran.stderr);
    if ran.code == Some(NO_SERVICE) && output.contains("Could not find service") {
        return Ok(State::None);
    }
    if ran.code != Some(0) {
        return Err(format!("launchctl: {}", ran.ending()));
    }
    let state = ran
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("\tstate = "));
    match state.map(str::trim) {
        Some("running") => Ok(State::There {
            runs: true,
            starts: Starts::WithSystem,
        }),
        Some(state)
            if state == "not running" || state == "waiting" || state.starts_with("spawn scheduled") =>
        {
            Ok(State::There {
                runs: false,
                starts: Starts::WithSystem,
            })
        }
        Some(state) => Err(format!("launchctl says `{}`", shortened(state))),
        None => Err("launchctl tells no state".to_owned()),
    }
}
