//! Sleep, and what comes after a power failure.

use super::{Asked, Found, unclear};
use crate::host::Os;
use crate::provision::context::Context;
use crate::provision::question::{Question, Tool};
use crate::provision::step::{Fix, Step};

/// The settings per source of power.
fn pmset(context: &Context) -> Tool {
    Tool::at(&context.host.mac.pmset, &["-g", "custom"])
}

/// The sources of power, as `pmset -g custom` heads them, with the option that sets one alone (pmset(1)).
const SOURCES: [(&str, &str); 3] = [
    ("AC Power:", "-c"),
    ("Battery Power:", "-b"),
    ("UPS Power:", "-u"),
];

/// The value of `key` for each source of power that has one, with the option that sets it.
fn settings(asked: &Asked<'_>, key: &str) -> Result<Vec<(&'static str, u32)>, String> {
    let ran = asked.ran(&pmset(asked.context))?;
    if ran.code != Some(0) {
        return Err(ran.ending());
    }
    let (mut found, mut source) = (vec![], None);
    for line in ran.stdout.lines() {
        if !line.starts_with(char::is_whitespace) {
            source = SOURCES
                .iter()
                .find(|(head, _)| *head == line.trim_end())
                .map(|(_, option)| *option);
            continue;
        }
        let mut words = line.split_whitespace();
        // What stands in parentheses behind a value says who prevents sleep just now.
        if let (Some(source), Some(found_key), Some(value)) = (source, words.next(), words.next())
            && found_key == key
        {
            let value = value
                .parse()
                .map_err(|_| format!("pmset says `{}`", line.trim()))?;
            found.push((source, value));
        }
    }
    if found.is_empty() {
        return Err(format!("pmset tells nothing of `{key}`"));
    }
    Ok(found)
}

fn set(context: &Context, option: &str, key: &str, value: u32) -> Tool {
    Tool::at(&context.host.mac.pmset, &[option, key, &value.to_string()])
}

/// Steps that give `key` a value where it has another.
fn steps(asked: &Asked<'_>, key: &str, wanted: u32) -> Fix {
    let Ok(found) = settings(asked, key) else {
        return unclear();
    };
    let other = found.into_iter().filter(|(_, value)| *value != wanted);
    let step = |(option, value)| {
        Step::undone_by(
            set(asked.context, option, key, wanted),
            set(asked.context, option, key, value),
        )
    };
    Fix::Steps(other.map(step).collect())
}

/// Whether the host falls asleep.
pub(super) mod sleep {
    use super::*;
    use crate::provision::kind::command::said;
    use crate::provision::question::Answer;

    /// What systemd starts for every kind of sleep (systemd.special(7)).
    const TARGETS: [&str; 4] = [
        "sleep.target",
        "suspend.target",
        "hibernate.target",
        "hybrid-sleep.target",
    ];

    /// The kinds of sleep the kernel offers (Documentation/admin-guide/pm/sleep-states.rst).
    const STATES: &str = "/sys/power/state";

    /// Something that every sysfs has.
    const SYSFS: &str = "/sys/kernel";

    fn systemctl(context: &Context, args: &[&str]) -> Tool {
        let args: Vec<&str> = args.iter().chain(&TARGETS).copied().collect();
        Tool::at(&context.host.tools.systemctl, &args)
    }

    fn enabled(context: &Context) -> Tool {
        systemctl(context, &["is-enabled"])
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        match context.os() {
            Os::MacOs => vec![Question::Run(pmset(context))],
            Os::Linux => vec![
                Question::Read(STATES.into()),
                Question::Resolve(SYSFS.into()),
                Question::Run(enabled(context)),
            ],
        }
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        match asked.context.os() {
            Os::MacOs => {
                let found = settings(asked, "sleep")?;
                let longest = found
                    .iter()
                    .map(|(_, minutes)| *minutes)
                    .filter(|minutes| *minutes > 0)
                    .min();
                Ok(match longest {
                    Some(minutes) => Found::switch(true, format!("after {minutes} minutes")),
                    None => Found::switch(false, "never"),
                })
            }
            Os::Linux => linux(asked),
        }
    }

    fn linux(asked: &Asked<'_>) -> Result<Found, String> {
        let sysfs = asked.get(&Question::Resolve(SYSFS.into()));
        match (asked.get(&Question::Read(STATES.into())), sysfs) {
            (Answer::Text(states), _) if states.trim().is_empty() => {
                return Ok(Found::switch(false, "the kernel offers none"));
            }
            (Answer::Missing, Answer::At(_)) => return Ok(Found::switch(false, "the kernel offers none")),
            (Answer::Text(_), _) => {}
            (other, _) => return Err(format!("{STATES}: {}", said(&other))),
        }
        let units = units(asked)?;
        let awake: Vec<&str> = units
            .iter()
            .filter(|(_, state)| state != "masked")
            .map(|(unit, _)| *unit)
            .collect();
        Ok(if awake.is_empty() {
            Found::switch(false, "masked")
        } else {
            Found::switch(true, format!("{} not masked", awake.join(", ")))
        })
    }

    /// The targets with their states, in words of systemctl(1).
    fn units(asked: &Asked<'_>) -> Result<Vec<(&'static str, String)>, String> {
        let ran = asked
            .ran(&enabled(asked.context))
            .map_err(|why| format!("systemctl: {why}"))?;
        let states: Vec<&str> = ran.stdout.lines().map(str::trim).collect();
        let known =
            |state: &&str| ["masked", "masked-runtime", "static", "enabled", "disabled"].contains(state);
        if states.len() != TARGETS.len() || !states.iter().all(known) {
            return Err(format!("systemctl: {}", ran.ending()));
        }
        Ok(TARGETS
            .into_iter()
            .zip(states.into_iter().map(str::to_owned))
            .collect())
    }

    pub(in super::super) fn fix(on: bool, asked: &Asked<'_>) -> Fix {
        if on {
            return Fix::ByHand("set after how many minutes it is to sleep".to_owned());
        }
        match asked.context.os() {
            Os::MacOs => steps(asked, "sleep", 0),
            Os::Linux => {
                let Ok(units) = units(asked) else {
                    return unclear();
                };
                let step = |(unit, _): (&str, String)| {
                    let tool = |verb: &str| Tool::at(&asked.context.host.tools.systemctl, &[verb, unit]);
                    Step::undone_by(tool("mask"), tool("unmask"))
                };
                let unmasked = units.into_iter().filter(|(_, state)| state != "masked");
                Fix::Steps(unmasked.map(step).collect())
            }
        }
    }
}

/// Whether the host starts by itself when the power comes back.
pub(super) mod restart {
    use super::*;

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        vec![Question::Run(pmset(context))]
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        let found = settings(asked, "autorestart")?;
        let on = found.iter().all(|(_, value)| *value == 1);
        Ok(Found::switch(on, if on { "on" } else { "off" }))
    }

    pub(in super::super) fn fix(on: bool, asked: &Asked<'_>) -> Fix {
        steps(asked, "autorestart", u32::from(on))
    }
}
