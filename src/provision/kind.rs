//! The kinds of items: what each is told in a manifest, what it asks, what the answers mean, and what would help.
//!
//! A kind is a section of the manifest and a struct here; the section's tables are items, told apart by their names:
//! `[brew.cmake]`, `[folder."/opt/toolchain"]`. Each struct has the same three functions: `questions`, `judge` and
//! `fix`. They take the item's name, what is known of the host, and the answers; they decide, and ask nobody.

pub mod account;
pub mod apple;
pub mod archive;
pub mod command;
pub mod files;
pub mod package;
pub mod posture;
pub mod service;
pub mod system;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::DeValue;

use super::Verdict;
use super::context::Context;
use super::question::{Answers, Question, View};
use super::step::Fix;
use crate::host::Os;
use account::Account;
use apple::{CommandLineTools, Rosetta, Simulator, Xcode};
use archive::Archive;
use command::{Check, Command, Env, Library};
use files::{Disk, File, Folder};
use package::{Manager, Package};
use posture::Posture;
use service::Service;
use system::{Arch, Release};

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `[arch.NAME]`, where the name is for people.
    Arch(String, Arch),
    /// `[release.NAME]`: `macos`, `linux`, or a distribution.
    Release(String, Release),
    /// `[brew.NAME]` and the sections of the other managers.
    Package(Manager, String, Package),
    /// `[command_line_tools.NAME]`
    CommandLineTools(String, CommandLineTools),
    /// `[xcode.NAME]`
    Xcode(String, Xcode),
    /// `[simulator.NAME]`
    Simulator(String, Simulator),
    /// `[rosetta.NAME]`
    Rosetta(String, Rosetta),
    /// `[account.NAME]`: an account, or `jobs` for all accounts of jobs.
    Account(String, Account),
    /// `[folder."/path"]`
    Folder(String, Folder),
    /// `[file."/path"]`
    File(String, File),
    /// `[archive.NAME]`
    Archive(String, Archive),
    /// `[disk."/path"]`
    Disk(String, Disk),
    /// `[service.NAME]`
    Service(String, Service),
    /// `[posture.NAME]`
    Posture(String, Posture),
    /// `[command.NAME]`
    Command(String, Command),
    /// `[library.NAME]`
    Library(String, Library),
    /// `[env.NAME]`
    Env(String, Env),
    /// `[check.NAME]`
    Check(String, Check),
}

/// The sections of a manifest, in the order in which their items are shown and put right: tools before what needs
/// them.
pub const SECTIONS: [&str; 25] = [
    "release",
    "arch",
    "apt",
    "dnf",
    "tap",
    "brew",
    "cask",
    "command_line_tools",
    "xcode",
    "simulator",
    "rosetta",
    "pip",
    "npm",
    "cargo",
    "account",
    "folder",
    "file",
    "archive",
    "disk",
    "service",
    "posture",
    "command",
    "library",
    "env",
    "check",
];

impl Kind {
    /// The item called `name` of a section, as its table says; `None` for a section that there is not.
    pub(super) fn read(
        section: &str,
        name: &str,
        table: Spanned<DeValue<'_>>,
    ) -> Option<Result<Self, toml::de::Error>> {
        fn told<'de, T: Deserialize<'de>>(table: Spanned<DeValue<'de>>) -> Result<T, toml::de::Error> {
            T::deserialize(table.into_deserializer())
        }
        let name = name.to_owned();
        let package =
            |manager, table| told(table).map(|package| Self::Package(manager, name.clone(), package));
        Some(match section {
            "arch" => told(table).map(|it| Self::Arch(name, it)),
            "release" => told(table).map(|it| Self::Release(name, it)),
            "command_line_tools" => told(table).map(|it| Self::CommandLineTools(name, it)),
            "xcode" => told(table).map(|it| Self::Xcode(name, it)),
            "simulator" => told(table).map(|it| Self::Simulator(name, it)),
            "rosetta" => told(table).map(|it| Self::Rosetta(name, it)),
            "account" => told(table).map(|it| Self::Account(name, it)),
            "folder" => told(table).map(|it| Self::Folder(name, it)),
            "file" => told(table).map(|it| Self::File(name, it)),
            "archive" => told(table).map(|it| Self::Archive(name, it)),
            "disk" => told(table).map(|it| Self::Disk(name, it)),
            "service" => told(table).map(|it| Self::Service(name, it)),
            "posture" => told(table).map(|it| Self::Posture(name, it)),
            "command" => told(table).map(|it| Self::Command(name, it)),
            "library" => told(table).map(|it| Self::Library(name, it)),
            "env" => told(table).map(|it| Self::Env(name, it)),
            "check" => told(table).map(|it| Self::Check(name, it)),
            other => package(Manager::of_section(other)?, table),
        })
    }

    /// The section it stands in.
    pub fn section(&self) -> &'static str {
        match self {
            Self::Arch(..) => "arch",
            Self::Release(..) => "release",
            Self::Package(manager, ..) => manager.section(),
            Self::CommandLineTools(..) => "command_line_tools",
            Self::Xcode(..) => "xcode",
            Self::Simulator(..) => "simulator",
            Self::Rosetta(..) => "rosetta",
            Self::Account(..) => "account",
            Self::Folder(..) => "folder",
            Self::File(..) => "file",
            Self::Archive(..) => "archive",
            Self::Disk(..) => "disk",
            Self::Service(..) => "service",
            Self::Posture(..) => "posture",
            Self::Command(..) => "command",
            Self::Library(..) => "library",
            Self::Env(..) => "env",
            Self::Check(..) => "check",
        }
    }

    /// Its name in that section.
    pub fn name(&self) -> &str {
        match self {
            Self::Arch(name, _)
            | Self::Release(name, _)
            | Self::Package(_, name, _)
            | Self::CommandLineTools(name, _)
            | Self::Xcode(name, _)
            | Self::Simulator(name, _)
            | Self::Rosetta(name, _)
            | Self::Account(name, _)
            | Self::Folder(name, _)
            | Self::File(name, _)
            | Self::Archive(name, _)
            | Self::Disk(name, _)
            | Self::Service(name, _)
            | Self::Posture(name, _)
            | Self::Command(name, _)
            | Self::Library(name, _)
            | Self::Env(name, _)
            | Self::Check(name, _) => name,
        }
    }

    /// Section and name, which no two items of a manifest share.
    pub fn id(&self) -> String {
        format!("{} {}", self.section(), self.name())
    }

    /// What cannot be meant, in words with a hint.
    pub(super) fn complaint(&self) -> Option<String> {
        match self {
            Self::Folder(path, it) => files::absolute(path).or_else(|| it.complaint()),
            Self::File(path, it) => files::absolute(path).or_else(|| it.complaint()),
            Self::Disk(path, it) => files::absolute(path).or_else(|| it.complaint()),
            Self::Archive(_, it) => it.complaint(),
            Self::Arch(_, it) => it.complaint(),
            Self::Package(manager, name, it) => it.complaint(*manager, name),
            Self::Command(name, it) => it.complaint(name),
            Self::Check(_, it) => it.complaint(),
            Self::Env(name, it) => it.complaint(name),
            Self::Posture(name, it) => it.complaint(name),
            Self::Account(name, it) => it.complaint(name),
            Self::Service(name, it) => it.complaint(name),
            Self::Xcode(_, it) => it.complaint(),
            Self::Simulator(name, it) => it.complaint(name),
            Self::Library(..) | Self::Release(..) | Self::CommandLineTools(..) | Self::Rosetta(..) => None,
        }
    }

    /// Whether it means something on `os` at all.
    pub(super) fn is_for(&self, os: Os) -> bool {
        match self {
            Self::Posture(name, _) => Posture::is_for(name, os),
            Self::CommandLineTools(..) | Self::Xcode(..) | Self::Simulator(..) | Self::Rosetta(..) => {
                os == Os::MacOs
            }
            Self::Arch(..)
            | Self::Release(..)
            | Self::Package(..)
            | Self::Account(..)
            | Self::Folder(..)
            | Self::File(..)
            | Self::Archive(..)
            | Self::Disk(..)
            | Self::Service(..)
            | Self::Command(..)
            | Self::Library(..)
            | Self::Env(..)
            | Self::Check(..) => true,
        }
    }

    /// What is wrong with an item for `systems`, where it means something on none of them.
    pub(super) fn misplaced(&self, systems: &[Os]) -> Option<String> {
        let is_lost = !systems.is_empty() && !systems.iter().any(|os| self.is_for(*os));
        is_lost.then(|| {
            let other = if systems.contains(&Os::Linux) {
                "macos"
            } else {
                "linux"
            };
            format!("`{}` means nothing there\nhint: os = \"{other}\"", self.id())
        })
    }

    /// What it wants to know.
    pub fn questions(&self, context: &Context) -> Vec<(View, Question)> {
        if !self.is_for(context.os()) {
            return vec![];
        }
        match self {
            Self::Arch(..) | Self::Release(..) => vec![],
            Self::Package(manager, name, it) => it.questions(*manager, name, context),
            Self::CommandLineTools(_, it) => it.questions(context),
            Self::Xcode(_, it) => it.questions(context),
            Self::Simulator(name, it) => it.questions(name, context),
            Self::Rosetta(_, it) => it.questions(context),
            Self::Account(name, it) => it.questions(name, context),
            Self::Folder(path, it) => it.questions(path),
            Self::File(path, it) => it.questions(path),
            Self::Archive(_, it) => it.questions(),
            Self::Disk(path, it) => it.questions(path),
            Self::Service(name, it) => it.questions(name, context),
            Self::Posture(name, it) => it.questions(name, context),
            Self::Command(name, it) => it.questions(name, context),
            Self::Library(name, it) => it.questions(name),
            Self::Env(name, it) => it.questions(name),
            Self::Check(_, it) => it.questions(),
        }
    }

    /// What the answers mean.
    pub fn judge(&self, context: &Context, answers: &Answers) -> Verdict {
        if !self.is_for(context.os()) {
            return Verdict::NotHere {
                why: "it means nothing on this system".to_owned(),
            };
        }
        match self {
            Self::Arch(_, it) => it.judge(context),
            Self::Release(name, it) => it.judge(name, context),
            Self::Package(manager, name, it) => it.judge(*manager, name, context, answers),
            Self::CommandLineTools(_, it) => it.judge(context, answers),
            Self::Xcode(_, it) => it.judge(context, answers),
            Self::Simulator(name, it) => it.judge(name, context, answers),
            Self::Rosetta(_, it) => it.judge(context, answers),
            Self::Account(name, it) => it.judge(name, context, answers),
            Self::Folder(path, it) => it.judge(path, context, answers),
            Self::File(path, it) => it.judge(path, context, answers),
            Self::Archive(_, it) => it.judge(context, answers),
            Self::Disk(path, it) => it.judge(path, answers),
            Self::Service(name, it) => it.judge(name, context, answers),
            Self::Posture(name, it) => it.judge(name, context, answers),
            Self::Command(name, it) => it.judge(name, context, answers),
            Self::Library(name, it) => it.judge(name, answers),
            Self::Env(name, it) => it.judge(name, answers),
            Self::Check(_, it) => it.judge(answers),
        }
    }

    /// What would help, when `verdict` is not met.
    pub fn fix(&self, context: &Context, answers: &Answers, verdict: &Verdict) -> Fix {
        if verdict.is_met() {
            return Fix::Nothing;
        }
        if let Verdict::Hidden { .. } = verdict {
            return Fix::ByHand(
                "add its folder to `native.extra_read`; `ephemerd profile explain` tells which rule hides it"
                    .to_owned(),
            );
        }
        match self {
            Self::Arch(..) => Fix::ByHand("use another machine".to_owned()),
            Self::Release(..) => Fix::ByHand("update the system".to_owned()),
            Self::Package(manager, name, it) => it.fix(*manager, name, context, verdict),
            Self::CommandLineTools(_, it) => it.fix(context, answers, verdict),
            Self::Xcode(_, it) => it.fix(context, answers, verdict),
            Self::Simulator(name, it) => it.fix(name, context, verdict),
            Self::Rosetta(_, it) => it.fix(context, verdict),
            Self::Account(name, it) => it.fix(name, context, answers, verdict),
            Self::Folder(path, it) => it.fix(path, answers, verdict),
            Self::File(path, it) => it.fix(path, answers, verdict),
            Self::Archive(_, it) => it.fix(answers, verdict),
            Self::Disk(path, _) => Fix::ByHand(format!("make room on the file system of {path}")),
            Self::Service(name, it) => it.fix(name, context, answers, verdict),
            Self::Posture(name, it) => it.fix(name, context, answers, verdict),
            Self::Command(..) => {
                Fix::ByHand("install what provides it, or name its folder in `path`".to_owned())
            }
            Self::Library(..) => Fix::ByHand("install what provides it".to_owned()),
            Self::Env(..) => Fix::ByHand(
                "create what it names, correct it, or take it out of the configuration; a running daemon is restarted".to_owned(),
            ),
            Self::Check(..) => Fix::ByHand("see what the command says".to_owned()),
        }
    }
}
