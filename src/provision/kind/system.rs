//! The machine and its system: what cannot be put right by installing something.

use serde::Deserialize;

use crate::host::Os;
use crate::provision::Verdict;
use crate::provision::context::Context;
use crate::provision::version::Range;

/// `[arch.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arch {
    /// The machine is one of these, as `uname -m` says.
    pub any: Vec<String>,
}

impl Arch {
    pub(super) fn complaint(&self) -> Option<String> {
        self.any
            .is_empty()
            .then(|| "no machine is allowed\nhint: name some, for example any = [\"arm64\"]".to_owned())
    }

    pub(super) fn judge(&self, context: &Context) -> Verdict {
        if self.any.contains(&context.arch) {
            Verdict::ok(&context.arch)
        } else {
            Verdict::wrong(&context.arch, self.any.join(" or "))
        }
    }
}

/// `[release.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its version: that of macOS, of the Linux kernel, or of the distribution.
    pub version: Range,
}

impl Release {
    pub(super) fn judge(&self, name: &str, context: &Context) -> Verdict {
        let found = match (name, context.os()) {
            ("macos", Os::MacOs) | ("linux", Os::Linux) => context.release.as_str(),
            _ if context.distribution.first().is_some_and(|id| id == name) => &context.distribution_version,
            _ => {
                return Verdict::NotHere {
                    why: format!("this is not {name}"),
                };
            }
        };
        match self.version.contains(found) {
            Some(true) => Verdict::ok(found),
            Some(false) if self.version.is_above(found) => Verdict::outdated(found, self.version.to_string()),
            Some(false) => Verdict::wrong(found, self.version.to_string()),
            None => Verdict::unknown(format!("`{found}` is no version")),
        }
    }
}
