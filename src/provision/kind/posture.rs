//! How the host is set: sleep, disk encryption, who is logged in.
//!
//! Every posture has a name, the systems it means something on, and what can be wanted of it. What a tool prints is
//! taken for an answer only where it is known word for word; everything else is a reason why nobody can tell. None of
//! the tools of macOS was tried on a Mac.

mod able;
mod login;
mod power;
mod safety;
mod updates;

use serde::Deserialize;

use crate::host::Os;
use crate::provision::Verdict;
use crate::provision::context::Context;
use crate::provision::kind::command::said;
use crate::provision::question::{Ability, Answer, Answers, Question, Ran, Tool, View};
use crate::provision::step::Fix;

/// `[posture.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posture {
    /// How it must be.
    pub want: Want,
}

/// How something must be set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Want {
    /// On or off.
    Switch(bool),
    /// At least this much.
    AtLeast(u32),
    /// This, by name.
    Named(String),
}

/// What can be wanted.
enum Shape {
    Switch,
    AtLeast,
    OneOf(&'static [&'static str]),
}

const MAC: &[Os] = &[Os::MacOs];
const LINUX: &[Os] = &[Os::Linux];
const BOTH: &[Os] = &[Os::MacOs, Os::Linux];

/// A posture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    AutoLogin,
    AutomaticUpdates,
    FileVault,
    Gatekeeper,
    Icloud,
    Landlock,
    Namespaces,
    PacketFilter,
    RemoteLogin,
    RestartAfterPowerFailure,
    Sip,
    Sleep,
    Spotlight,
    TccGrants,
    TimeSync,
}

const NAMES: [(&str, Name); 15] = [
    ("auto_login", Name::AutoLogin),
    ("automatic_updates", Name::AutomaticUpdates),
    ("filevault", Name::FileVault),
    ("gatekeeper", Name::Gatekeeper),
    ("icloud", Name::Icloud),
    ("landlock", Name::Landlock),
    ("namespaces", Name::Namespaces),
    ("packet_filter", Name::PacketFilter),
    ("remote_login", Name::RemoteLogin),
    ("restart_after_power_failure", Name::RestartAfterPowerFailure),
    ("sip", Name::Sip),
    ("sleep", Name::Sleep),
    ("spotlight", Name::Spotlight),
    ("tcc_grants", Name::TccGrants),
    ("time_sync", Name::TimeSync),
];

/// The names of all postures, in their order.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

impl Name {
    fn of(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, name)| *name)
    }

    fn systems(self) -> &'static [Os] {
        match self {
            Self::AutoLogin
            | Self::FileVault
            | Self::Gatekeeper
            | Self::Icloud
            | Self::RemoteLogin
            | Self::RestartAfterPowerFailure
            | Self::Sip
            | Self::Spotlight
            | Self::TccGrants => MAC,
            Self::Landlock | Self::Namespaces => LINUX,
            Self::AutomaticUpdates | Self::PacketFilter | Self::Sleep | Self::TimeSync => BOTH,
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::AutomaticUpdates => Shape::OneOf(&updates::POLICIES),
            Self::Landlock => Shape::AtLeast,
            Self::AutoLogin
            | Self::FileVault
            | Self::Gatekeeper
            | Self::Icloud
            | Self::Namespaces
            | Self::PacketFilter
            | Self::RemoteLogin
            | Self::RestartAfterPowerFailure
            | Self::Sip
            | Self::Sleep
            | Self::Spotlight
            | Self::TccGrants
            | Self::TimeSync => Shape::Switch,
        }
    }

    fn questions(self, context: &Context) -> Vec<Question> {
        match self {
            Self::AutoLogin => login::auto_login::questions(context),
            Self::Icloud => login::icloud::questions(context),
            Self::RemoteLogin => login::remote::questions(context),
            Self::TccGrants => login::grants::questions(context),
            Self::FileVault => safety::filevault::questions(context),
            Self::Gatekeeper => safety::gatekeeper::questions(context),
            Self::Sip => safety::sip::questions(context),
            Self::Spotlight => safety::spotlight::questions(context),
            Self::Sleep => power::sleep::questions(context),
            Self::RestartAfterPowerFailure => power::restart::questions(context),
            Self::AutomaticUpdates => updates::policy::questions(context),
            Self::TimeSync => updates::time::questions(context),
            Self::Landlock => able::questions(Ability::Landlock),
            Self::Namespaces => able::questions(Ability::Namespaces),
            Self::PacketFilter => able::questions(Ability::PacketFilter),
        }
    }

    fn found(self, asked: &Asked<'_>) -> Result<Found, String> {
        match self {
            Self::AutoLogin => login::auto_login::found(asked),
            Self::Icloud => login::icloud::found(asked),
            Self::RemoteLogin => login::remote::found(asked),
            Self::TccGrants => login::grants::found(asked),
            Self::FileVault => safety::filevault::found(asked),
            Self::Gatekeeper => safety::gatekeeper::found(asked),
            Self::Sip => safety::sip::found(asked),
            Self::Spotlight => safety::spotlight::found(asked),
            Self::Sleep => power::sleep::found(asked),
            Self::RestartAfterPowerFailure => power::restart::found(asked),
            Self::AutomaticUpdates => updates::policy::found(asked),
            Self::TimeSync => updates::time::found(asked),
            Self::Landlock => able::found(Ability::Landlock, asked),
            Self::Namespaces => able::found(Ability::Namespaces, asked),
            Self::PacketFilter => able::found(Ability::PacketFilter, asked),
        }
    }

    /// What would help where something else was found than `want`.
    fn fix(self, want: &Want, asked: &Asked<'_>) -> Fix {
        let on = *want == Want::Switch(true);
        match self {
            Self::AutoLogin => login::auto_login::fix(on, asked),
            Self::Icloud => login::icloud::fix(on),
            Self::RemoteLogin => login::remote::fix(on),
            Self::TccGrants => login::grants::fix(on),
            Self::FileVault => safety::filevault::fix(on),
            Self::Gatekeeper => safety::gatekeeper::fix(on),
            Self::Sip => safety::sip::fix(on),
            Self::Spotlight => safety::spotlight::fix(on, asked),
            Self::Sleep => power::sleep::fix(on, asked),
            Self::RestartAfterPowerFailure => power::restart::fix(on, asked),
            Self::AutomaticUpdates => updates::policy::fix(want, asked),
            Self::TimeSync => updates::time::fix(on, asked),
            Self::Landlock => able::fix(Ability::Landlock, asked.context),
            Self::Namespaces => able::fix(Ability::Namespaces, asked.context),
            Self::PacketFilter => able::fix(Ability::PacketFilter, asked.context),
        }
    }
}

/// How something is set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// What that is of what can be wanted; nothing of it where it is half-way.
    is: Option<Want>,
    /// The same for people.
    shown: String,
}

impl Found {
    fn switch(on: bool, shown: impl Into<String>) -> Self {
        Self {
            is: Some(Want::Switch(on)),
            shown: shown.into(),
        }
    }

    fn neither(shown: impl Into<String>) -> Self {
        Self {
            is: None,
            shown: shown.into(),
        }
    }
}

/// What a host answered.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    context: &'a Context,
    answers: &'a Answers,
}

impl Asked<'_> {
    fn get(&self, question: &Question) -> Answer {
        self.answers.get(View::Host, question)
    }

    /// What a program said, or why it said nothing.
    fn ran(&self, tool: &Tool) -> Result<Ran, String> {
        match self.get(&Question::Run(tool.clone())) {
            Answer::Ran(ran) => Ok(ran),
            other => Err(said(&other)),
        }
    }
}

/// What is left to do where nobody can tell how something is set.
fn unclear() -> Fix {
    Fix::ByHand("see what keeps it from being asked".to_owned())
}

impl Posture {
    pub(super) fn complaint(&self, name: &str) -> Option<String> {
        let Some(known) = Name::of(name) else {
            return Some(format!("`{name}` is no posture\nhint: {}", nearest(name)));
        };
        match (known.shape(), &self.want) {
            (Shape::Switch, Want::Switch(_)) => None,
            (Shape::Switch, _) => Some(format!(
                "`{name}` is on or off\nhint: want = true, or want = false"
            )),
            (Shape::AtLeast, Want::AtLeast(1..)) => None,
            (Shape::AtLeast, _) => Some(format!(
                "`{name}` is a number, and more is better\nhint: want = {}",
                crate::sandbox::axes::LANDLOCK_ABI
            )),
            (Shape::OneOf(all), Want::Named(one)) if all.contains(&one.as_str()) => None,
            (Shape::OneOf(all), _) => Some(format!(
                "`{name}` is one of {}\nhint: want = \"{}\"",
                all.join(", "),
                all[0]
            )),
        }
    }

    /// Whether it means something on `os`.
    pub(super) fn is_for(name: &str, os: Os) -> bool {
        Name::of(name).is_none_or(|known| known.systems().contains(&os))
    }

    pub(super) fn questions(&self, name: &str, context: &Context) -> Vec<(View, Question)> {
        let all = Name::of(name)
            .map(|known| known.questions(context))
            .unwrap_or_default();
        all.into_iter().map(|question| (View::Host, question)).collect()
    }

    pub(super) fn judge(&self, name: &str, context: &Context, answers: &Answers) -> Verdict {
        let Some(known) = Name::of(name) else {
            return Verdict::unknown("there is no such posture");
        };
        match known.found(&Asked { context, answers }) {
            Err(why) => Verdict::unknown(why),
            Ok(Found { is, shown }) => {
                let is_met = match (&self.want, &is) {
                    (Want::AtLeast(wanted), Some(Want::AtLeast(found))) => found >= wanted,
                    (wanted, Some(found)) => wanted == found,
                    (_, None) => false,
                };
                if is_met {
                    Verdict::ok(shown)
                } else {
                    Verdict::wrong(shown, self.want.to_string())
                }
            }
        }
    }

    pub(super) fn fix(&self, name: &str, context: &Context, answers: &Answers, verdict: &Verdict) -> Fix {
        match (Name::of(name), verdict) {
            (Some(known), Verdict::Wrong { .. }) => known.fix(&self.want, &Asked { context, answers }),
            _ => unclear(),
        }
    }
}

impl std::fmt::Display for Want {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Switch(true) => f.write_str("on"),
            Self::Switch(false) => f.write_str("off"),
            Self::AtLeast(wanted) => write!(f, "{wanted} or more"),
            Self::Named(wanted) => f.write_str(wanted),
        }
    }
}

/// What to say of a name that there is not.
fn nearest(name: &str) -> String {
    let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(known, name);
    let best = names().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best.filter(|best| likeness(best) > 0.5) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
    }
}
