//! Updates that come by themselves, and the time.

use super::{Asked, Found, Want, unclear};
use crate::host::Os;
use crate::provision::context::Context;
use crate::provision::question::{Question, Ran, Tool, shortened};
use crate::provision::step::{Action, Fix, Place, Step};

/// What the system may do by itself about updates; each includes those before it.
pub(super) const POLICIES: [&str; 4] = ["off", "check", "download", "install"];

/// What systemsetup(8) says after `label`: On or Off.
pub(super) fn on_or_off(ran: &Ran, label: &str) -> Result<Found, String> {
    // Other lines may stand before it, "### Error:-99" for one, that mean nothing.
    let mut lines = ran.stdout.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.clone().next().unwrap_or_default();
    let line = lines.find(|line| line.starts_with(label)).unwrap_or(first);
    match (ran.code, line.strip_prefix(label).map(str::trim)) {
        (Some(0), Some("On")) => Ok(Found::switch(true, "on")),
        (Some(0), Some("Off")) => Ok(Found::switch(false, "off")),
        // "You need administrator access to run this tool", or Full Disk Access.
        (Some(0), _) => Err(format!("systemsetup says `{}`", shortened(line))),
        _ => Err(ran.ending()),
    }
}

/// Whether updates are looked for, fetched, installed.
pub(super) mod policy {
    use super::*;
    use crate::provision::kind::posture::login::value;

    const DOMAIN: &str = "/Library/Preferences/com.apple.SoftwareUpdate";

    /// What is set for each policy but the first. Whether security responses install themselves is a setting of its own
    /// (`CriticalUpdateInstall`) and left to Apple.
    const KEYS: [&str; 3] = [
        "AutomaticCheckEnabled",
        "AutomaticDownload",
        "AutomaticallyInstallMacOSUpdates",
    ];

    /// The same on Debian; 0 is never, and what is not set is never (apt.systemd.daily).
    const PERIODIC: [&str; 3] = [
        "Update-Package-Lists",
        "Download-Upgradeable-Packages",
        "Unattended-Upgrade",
    ];

    /// Read after everything that others put there, by its name.
    const APT_FILE: &str = "/etc/apt/apt.conf.d/99-ephemerd-updates";

    fn read(context: &Context, key: &str) -> Tool {
        Tool::at(&context.host.mac.defaults, &["read", DOMAIN, key])
    }

    /// It lies beside apt-get(8).
    fn apt_config(context: &Context) -> Tool {
        Tool::at(
            &context.host.tools.apt_get.with_file_name("apt-config"),
            &["dump"],
        )
    }

    fn has_apt(context: &Context) -> bool {
        context
            .distribution
            .iter()
            .any(|id| id == "debian" || id == "ubuntu")
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        match context.os() {
            Os::MacOs => KEYS.map(|key| Question::Run(read(context, key))).to_vec(),
            Os::Linux if has_apt(context) => vec![Question::Run(apt_config(context))],
            Os::Linux => vec![],
        }
    }

    /// The policy that three switches make: what comes later does nothing without what comes before.
    fn policy(switches: [bool; 3]) -> Found {
        let level = switches.iter().take_while(|on| **on).count();
        Found {
            is: Some(Want::Named(POLICIES[level].to_owned())),
            shown: POLICIES[level].to_owned(),
        }
    }

    fn switch(asked: &Asked<'_>, key: &str) -> Result<Option<bool>, String> {
        match value(&asked.ran(&read(asked.context, key))?)?.as_deref() {
            None => Ok(None),
            Some("1") => Ok(Some(true)),
            Some("0") => Ok(Some(false)),
            Some(other) => Err(format!("{key} is `{}`", shortened(other))),
        }
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        match asked.context.os() {
            Os::MacOs => {
                let mut switches = [false; 3];
                for (key, is) in KEYS.into_iter().zip(&mut switches) {
                    match switch(asked, key)? {
                        Some(on) => *is = on,
                        // What holds then differs between releases.
                        None => return Ok(Found::neither(format!("{key} is not set"))),
                    }
                }
                Ok(policy(switches))
            }
            Os::Linux if has_apt(asked.context) => {
                let ran = asked
                    .ran(&apt_config(asked.context))
                    .map_err(|why| format!("apt-config: {why}"))?;
                apt(&ran)
            }
            Os::Linux => Err("how this distribution updates itself is not known here".to_owned()),
        }
    }

    /// Reads lines like `APT::Periodic::Unattended-Upgrade "1";`.
    fn apt(ran: &Ran) -> Result<Found, String> {
        // Without its root it is no configuration of apt(8).
        if ran.code != Some(0)
            || !ran
                .stdout
                .lines()
                .any(|line| line.starts_with("APT::Architecture "))
        {
            return Err(format!("apt-config: {}", ran.ending()));
        }
        let set = |key: &str| {
            let lines = ran.stdout.lines();
            let mut values = lines.filter_map(|line| {
                let rest = line.strip_prefix("APT::Periodic::")?.strip_prefix(key)?.trim();
                Some(rest.strip_prefix('"')?.strip_suffix("\";")?.to_owned())
            });
            values.next()
        };
        if set("Enable").as_deref() == Some("0") {
            return Ok(policy([false; 3]));
        }
        let switches = PERIODIC.map(|key| set(key).is_some_and(|value| !value.is_empty() && value != "0"));
        // Installing fetches what it needs.
        let [check, download, install] = switches;
        Ok(policy([check, download || install, install]))
    }

    pub(in super::super) fn fix(want: &Want, asked: &Asked<'_>) -> Fix {
        let level = match want {
            Want::Named(name) => POLICIES.iter().position(|policy| policy == name),
            Want::Switch(_) | Want::AtLeast(_) => None,
        };
        let Some(level) = level else { return unclear() };
        match asked.context.os() {
            Os::MacOs => {
                let mut steps = vec![];
                for (at, key) in KEYS.into_iter().enumerate() {
                    let wanted = at < level;
                    let Ok(former) = switch(asked, key) else {
                        return unclear();
                    };
                    if former != Some(wanted) {
                        let defaults = |args: &[&str]| Tool::at(&asked.context.host.mac.defaults, args);
                        let write = |on: bool| {
                            defaults(&["write", DOMAIN, key, "-bool", if on { "true" } else { "false" }])
                        };
                        let undo = former.map_or_else(|| defaults(&["delete", DOMAIN, key]), write);
                        steps.push(Step::undone_by(write(wanted), undo));
                    }
                }
                Fix::Steps(steps)
            }
            Os::Linux => {
                let line = |(at, key): (usize, &str)| {
                    format!("APT::Periodic::{key} \"{}\";\n", u8::from(at < level))
                };
                let lines: String = PERIODIC.into_iter().enumerate().map(line).collect();
                let place = Place {
                    path: APT_FILE.into(),
                    owner: None,
                    group: None,
                    mode: Some(0o644),
                };
                let content = Some(format!("APT::Periodic::Enable \"1\";\n{lines}"));
                Fix::Steps(vec![Step {
                    action: Action::File { place, content },
                    undo: None,
                }])
            }
        }
    }
}

/// Whether the clock is kept right from outside.
pub(super) mod time {
    use super::*;

    fn tool(context: &Context) -> Tool {
        match context.os() {
            Os::MacOs => Tool::at(&context.host.mac.systemsetup, &["-getusingnetworktime"]),
            Os::Linux => Tool::at(
                &context.host.tools.timedatectl,
                &["show", "-p", "NTP", "-p", "NTPSynchronized"],
            ),
        }
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        vec![Question::Run(tool(context))]
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        let ran = asked.ran(&tool(asked.context))?;
        match asked.context.os() {
            Os::MacOs => on_or_off(&ran, "Network Time:"),
            Os::Linux => linux(&ran),
        }
    }

    fn linux(ran: &Ran) -> Result<Found, String> {
        if ran.code != Some(0) {
            // "System has not been booted with systemd as init system"
            return Err(format!("timedatectl: {}", ran.ending()));
        }
        let property = |name: &str| {
            let lines = ran.stdout.lines();
            let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            match values.next() {
                Some("yes") => Ok(true),
                Some("no") => Ok(false),
                _ => Err(format!("timedatectl tells nothing of {name}")),
            }
        };
        Ok(match (property("NTP")?, property("NTPSynchronized")?) {
            // Others than systemd's own service keep it too, chrony for one.
            (_, true) => Found::switch(true, "synchronized"),
            (true, false) => Found::neither("on, and not synchronized yet"),
            (false, false) => Found::switch(false, "off"),
        })
    }

    pub(in super::super) fn fix(on: bool, asked: &Asked<'_>) -> Fix {
        let is = found(asked).ok().and_then(|found| found.is);
        match asked.context.os() {
            Os::MacOs => {
                let set =
                    |to: &str| Tool::at(&asked.context.host.mac.systemsetup, &["-setusingnetworktime", to]);
                let (to, former) = if on { ("on", "off") } else { ("off", "on") };
                Fix::Steps(vec![Step::undone_by(set(to), set(former))])
            }
            Os::Linux if is.is_none() => {
                Fix::ByHand("see why it is not: timedatectl timesync-status".to_owned())
            }
            Os::Linux => {
                let set = |to: &str| Tool::at(&asked.context.host.tools.timedatectl, &["set-ntp", to]);
                let (to, former) = if on { ("true", "false") } else { ("false", "true") };
                Fix::Steps(vec![Step::undone_by(set(to), set(former))])
            }
        }
    }
}
