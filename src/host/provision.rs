//! The host's side of [`crate::provision`]: what is known of it, answers to questions, and changes.

pub mod answer;
pub mod archive;
pub mod perform;
pub mod receipts;
pub mod stamp;

use std::collections::BTreeSet;

use camino::Utf8PathBuf;

use super::{Host, Os, mac};
use crate::config::Config;
use crate::provision::context::Context;
use crate::provision::manifest::Manifest;
use crate::workspace;

/// What is known of `host` before anything is asked: it is told quickly, and what cannot be told is left empty, so that
/// the items that depend on it cannot be met.
pub fn context(host: &Host, config: &Config, manifest: &Manifest) -> Context {
    let uname = nix::sys::utsname::uname().ok();
    let said = |value: Option<&std::ffi::OsStr>| {
        value
            .and_then(|text| text.to_str())
            .unwrap_or_default()
            .to_owned()
    };
    let arch = host.machine();
    let kernel = said(uname.as_ref().map(|uname| uname.release()));
    let release = match host.os {
        Os::MacOs => mac::version(host).unwrap_or_default(),
        Os::Linux => kernel,
    };
    let os_release = match host.os {
        Os::MacOs => String::new(),
        Os::Linux => std::fs::read_to_string(&host.os_release).unwrap_or_default(),
    };
    let account = &config.host.account;
    let slots = (1..=config.native.slots).map(|slot| format!("{account}{slot}"));
    let brew = config
        .native
        .homebrew_prefix
        .clone()
        .or_else(|| Some(host.homebrew.clone()));
    let brew = brew.filter(|prefix| prefix.join("bin/brew").exists());
    let named = manifest
        .items
        .iter()
        .filter_map(|item| item.only_if.exists.clone());
    let named: BTreeSet<Utf8PathBuf> = named.collect();
    Context {
        arch,
        release,
        distribution: field(&os_release, "ID")
            .into_iter()
            .chain(
                field(&os_release, "ID_LIKE")
                    .iter()
                    .flat_map(|like| like.split(' '))
                    .map(str::to_owned),
            )
            .collect(),
        distribution_version: field(&os_release, "VERSION_ID").unwrap_or_default(),
        job_path: workspace::path_of_jobs(host.os, config, brew.as_deref()),
        brew,
        accounts: slots.chain([account.clone()]).collect(),
        group: account.clone(),
        data_dir: config.host.data_dir.clone(),
        present: named.into_iter().filter(|path| path.exists()).collect(),
        root: nix::unistd::geteuid().is_root(),
        host: host.clone(),
    }
}

/// A field of os-release(5), without the quotes it may have.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim_matches(['"', '\'']).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_os_release_are_told_from_those_they_begin_like() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\nID=debian\nID_LIKE='a b'\n";
        assert_eq!(field(text, "ID").as_deref(), Some("debian"));
        assert_eq!(field(text, "ID_LIKE").as_deref(), Some("a b"));
        assert_eq!(field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(field(text, "VERSION"), None);
    }
}
