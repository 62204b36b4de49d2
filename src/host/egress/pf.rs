//! pf, by pfctl(8). **None of this was run on a Mac**; tests run it against a stand-in.
//!
//! Only our own anchor is ever changed. `-d`, `-e`, `-F all` and `-f /etc/pf.conf` are never used: each takes something
//! away from others (the enable count, every rule, or the NAT of running VMs).

use std::collections::BTreeMap;
use std::fs;

use camino::Utf8PathBuf;
use ipnet::IpNet;

use super::{EgressError, TIMEOUT, must};
use crate::egress::{Blocked, pf};
use crate::host::Host;
use crate::host::command::{CommandSpec, Output};

/// The table of everything that is not the internet.
const DENIED: &str = "ephemerd_denied";

/// Runs pfctl; it must end well and complain about nothing.
fn pfctl(host: &Host, args: &[&str], stdin: Option<&str>) -> Result<Output, EgressError> {
    let mut spec = CommandSpec::new(&host.mac.pfctl, args, TIMEOUT);
    spec.stdin = stdin.map(str::to_owned);
    let output = must(&spec)?;
    match pf::complaint(&output.stderr) {
        None => Ok(output),
        Some(said) => Err(EgressError::Said {
            command: spec.to_string(),
            said: said.to_owned(),
        }),
    }
}

/// What pfctl makes of `text`, without loading it.
pub(super) fn form(host: &Host, text: &str) -> Result<Vec<String>, EgressError> {
    Ok(pf::normal_form(
        &pfctl(host, &["-n", "-v", "-f", "-"], Some(text))?.stdout,
    ))
}

/// Loads one anchor, and keeps the filter on.
pub(super) fn load(host: &Host, name: &str, text: &str) -> Result<(), EgressError> {
    pfctl(host, &["-a", &pf::anchor(name), "-f", "-"], Some(text))?;
    enable(host, name)
}

/// Where the token lies that says that we need the filter. Of this boot: the folder is emptied at every start.
fn token_file(host: &Host, name: &str) -> Utf8PathBuf {
    host.run.join("ephemerd").join(format!("{name}.pf-token"))
}

/// Asks for the filter to be on. A token that is known already is not asked for again, for nobody else would ever
/// give it back; unless the filter is off, which makes every token void.
fn enable(host: &Host, name: &str) -> Result<(), EgressError> {
    let file = token_file(host, name);
    let boot = boot_session(host)?;
    let known = fs::read_to_string(&file).unwrap_or_default();
    let is_ours = known.split_once(' ').is_some_and(|(session, _)| session == boot);
    if is_ours && pf::is_enabled(&pfctl(host, &["-s", "info"], None)?.stdout) {
        return Ok(());
    }
    let said = pfctl(host, &["-E"], None)?;
    let token = pf::token(&said.stderr).or_else(|| pf::token(&said.stdout));
    let token = token.ok_or_else(|| EgressError::Said {
        command: format!("{} -E", host.mac.pfctl),
        said: "no token".to_owned(),
    })?;
    let failed = |source| EgressError::State {
        path: file.clone(),
        source,
    };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(&file, format!("{boot} {token}\n")).map_err(failed)
}

/// What this start of the Mac is called; tokens end with it.
fn boot_session(host: &Host) -> Result<String, EgressError> {
    let spec = CommandSpec::new(&host.mac.sysctl, &["-n", "kern.bootsessionuuid"], TIMEOUT);
    Ok(must(&spec)?.stdout.trim().to_owned())
}

pub(super) fn verify(
    host: &Host,
    name: &str,
    rules: &[String],
    denied: &[IpNet],
) -> Result<BTreeMap<u32, Blocked>, EgressError> {
    let lost = |why: String| Err(EgressError::Lost { why });
    let anchor = pf::anchor(name);
    if !pf::is_enabled(&pfctl(host, &["-s", "info"], None)?.stdout) {
        return lost("pf is off".to_owned());
    }
    if let Some(why) = pf::unreached(&pfctl(host, &["-s", "rules"], None)?.stdout) {
        return lost(why);
    }
    let loaded = match pfctl(host, &["-a", &anchor, "-s", "rules"], None) {
        Err(EgressError::Said { said, .. }) if said.contains("DIOCGETRULES") => {
            return lost(format!("there is no anchor `{anchor}`"));
        }
        other => pf::normal_form(&other?.stdout),
    };
    if loaded != rules {
        let missing = rules.iter().find(|rule| !loaded.contains(rule));
        let strange = loaded.iter().find(|rule| !rules.contains(rule));
        let why = match (missing, strange) {
            (Some(rule), _) => format!("`{rule}` is missing"),
            (None, Some(rule)) => format!("`{rule}` does not belong there"),
            (None, None) => "the rules stand in another order".to_owned(),
        };
        return lost(format!("anchor `{anchor}` was changed: {why}"));
    }
    let shown = pfctl(host, &["-a", &anchor, "-t", DENIED, "-T", "show"], None);
    match shown {
        Ok(shown) if pf::table(&shown.stdout).is_ok_and(|nets| nets == denied) => {}
        Ok(_) => return lost(format!("table <{DENIED}> of anchor `{anchor}` was changed")),
        Err(error) => return lost(format!("table <{DENIED}>: {}", crate::chain(&error))),
    }
    let labels = pfctl(host, &["-a", &anchor, "-s", "labels"], None)?.stdout;
    Ok(pf::blocked(&labels))
}

/// Empties the anchor, whose node stays until the next start, and gives the token back.
pub(super) fn remove(host: &Host, name: &str) -> Result<(), EgressError> {
    let anchor = pf::anchor(name);
    for what in ["rules", "Tables"] {
        pfctl(host, &["-a", &anchor, "-F", what], None)?;
    }
    let file = token_file(host, name);
    let Ok(known) = fs::read_to_string(&file) else {
        return Ok(());
    };
    if let Some((session, token)) = known.trim().split_once(' ')
        && session == boot_session(host)?
    {
        // Somebody may have turned the filter off, which makes the token void and this fail.
        let spec = CommandSpec::new(&host.mac.pfctl, &["-X", token], TIMEOUT);
        crate::host::command::run(&spec)?;
    }
    fs::remove_file(&file).map_err(|source| EgressError::State { path: file, source })
}
