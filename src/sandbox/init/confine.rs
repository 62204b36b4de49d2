//! Step `landlock`: the file rules of the policy once more, by the kernel's second mechanism, and the scopes.
//!
//! Everything is a hard requirement: a right or a scope this kernel does not know fails the step.

use camino::Utf8Path;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::{Step, StepError};
use crate::profile::policy::{Access, PathRule, Policy, View};

const STEP: &str = "landlock";

/// Landlock ABI 6 (Linux 6.12): the first with scopes for signals and abstract Unix sockets.
const NEEDED: ABI = ABI::V6;

/// Restricts this thread, and everything it starts, to what `policy` lists.
pub(super) fn landlock(policy: &Policy) -> Result<(), StepError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))
        .step(STEP)?
        .scope(Scope::from_all(NEEDED))
        .step(STEP)?
        .create()
        .step(STEP)?;
    if policy.view == View::Host {
        ruleset = add(ruleset, "/", reading())?;
    }
    let device_folder = device_folder(policy);
    for rule in &policy.paths {
        let rights = match rule.access {
            Access::Read => reading(),
            Access::Write | Access::Scratch => {
                AccessFs::from_all(NEEDED) & !AccessFs::MakeBlock & !AccessFs::MakeChar
            }
            Access::Proc => AccessFs::ReadFile | AccessFs::ReadDir,
            Access::Device | Access::Pts => devices(),
            // What is shown below may be listed by rules of its own; what is not shown is not there.
            Access::List => BitFlags::from(AccessFs::ReadDir),
            Access::Hide if Some(rule.path.as_path()) == device_folder => devices(),
            Access::Hide | Access::Link => continue,
        };
        if rule.access == Access::Device && device_folder.is_some() && rule.path.parent() == device_folder {
            continue;
        }
        ruleset = add(ruleset, rule.path.as_str(), rights)?;
    }
    let status = ruleset.restrict_self().step(STEP)?;
    if status.ruleset != RulesetStatus::FullyEnforced {
        return Err(StepError::new(STEP, format!("only {:?}", status.ruleset)));
    }
    Ok(())
}

/// The folder that is hidden but for devices and links in it, and folders with rules of their own: `/dev`, as
/// the templates have it. One rule can then speak for all its devices.
fn device_folder(policy: &Policy) -> Option<&Utf8Path> {
    let device = policy.paths.iter().find(|rule| rule.access == Access::Device)?;
    let folder = device.path.parent()?;
    let is_hidden = policy
        .paths
        .iter()
        .any(|rule| rule.access == Access::Hide && rule.path == folder);
    let fits = |rule: &PathRule| {
        matches!(
            rule.access,
            Access::Device | Access::Link | Access::Pts | Access::Scratch
        )
    };
    let mut inside = policy
        .paths
        .iter()
        .filter(|rule| rule.path.parent() == Some(folder));
    (is_hidden && inside.all(fits)).then_some(folder)
}

fn devices() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::IoctlDev | AccessFs::Truncate
}

fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute
}

/// Adds one rule. A path that is not in the view (an optional rule) needs none, and neither does a link, which
/// grants nothing itself.
fn add(
    ruleset: landlock::RulesetCreated,
    path: &str,
    rights: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, StepError> {
    let named = |e: &dyn std::fmt::Display| StepError::new(STEP, format!("`{path}`: {e}"));
    let opened = match open(
        path,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    ) {
        Ok(opened) => opened,
        Err(Errno::ENOENT) => return Ok(ruleset),
        Err(e) => return Err(named(&e)),
    };
    let kind = SFlag::from_bits_truncate(fstat(&opened).map_err(|e| named(&e))?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFLNK {
        return Ok(ruleset);
    }
    // Rights that only folders can have are refused by the kernel for anything else.
    let rights = if kind == SFlag::S_IFDIR {
        rights
    } else {
        rights & AccessFs::from_file(NEEDED)
    };
    ruleset
        .add_rule(PathBeneath::new(opened, rights))
        .map_err(|e| named(&e))
}
