//! pf, by pfctl(8). **None of this was run on a Mac**; tests run it against a stand-in.
//!
//! Only our own anchor is ever changed. `-d`, `-e`, `-F all` and `-f /etc/pf.conf` are never used: each takes something
//! away from others (the enable count, every rule, or the NAT of running VMs).

use std::collections::BTreeMap;
use std::fs;
use std::io;

use camino::Utf8PathBuf;
use ipnet::IpNet;

use super::{EgressError, TIMEOUT, difference, must};
use crate::egress::{Blocked, pf};
use crate::host::Host;
use crate::host::command::{self, CommandSpec, Output};

/// The table of everything that is not the internet.
const DENIED: &str = "ephemerd_denied";

/// What is wrong where pf is told not to look at the loopback interface.
const SKIPS: &str = "pf skips lo0, where jobs are kept from protected ports\nhint: take `set skip on lo0` out of the main ruleset, and let `pass quick on lo0 all no state` stand after its anchors instead";

/// Runs pfctl; it must end well and complain about nothing.
fn pfctl(host: &Host, args: &[&str], stdin: Option<&str>) -> Result<Output, EgressError> {
    let mut spec = CommandSpec::new(&host.mac.pfctl, args, TIMEOUT);
    spec.stdin = stdin.map(str::to_owned);
    let output = must(&spec)?;
    uncomplaining(&spec, &output)?;
    Ok(output)
}

fn uncomplaining(spec: &CommandSpec, output: &Output) -> Result<(), EgressError> {
    match pf::complaint(&output.stderr) {
        None => Ok(()),
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

/// The boot session in which a token was taken, and the token.
fn known_token(host: &Host, name: &str) -> Option<(String, String)> {
    let known = fs::read_to_string(token_file(host, name)).ok()?;
    let (session, token) = known.trim().split_once(' ')?;
    Some((session.to_owned(), token.to_owned()))
}

/// Whether the system still knows the token. `-d`, by whomever, makes all of them void.
fn is_void(host: &Host, token: &str) -> Result<bool, EgressError> {
    let output = command::run(&CommandSpec::new(&host.mac.pfctl, &["-s", "References"], TIMEOUT))?;
    // Where it cannot be told, that the filter is on must do.
    Ok(pf::is_held(&(output.stdout + &output.stderr), token) == Some(false))
}

/// Asks for the filter to be on. A token that is good is not asked for again, for nobody else would ever give it back.
fn enable(host: &Host, name: &str) -> Result<(), EgressError> {
    let boot = boot_session(host)?;
    if let Some((session, token)) = known_token(host, name)
        && session == boot
        && pf::is_enabled(&pfctl(host, &["-s", "info"], None)?.stdout)
        && !is_void(host, &token)?
    {
        return Ok(());
    }
    let spec = CommandSpec::new(&host.mac.pfctl, &["-E"], TIMEOUT);
    let said = must(&spec)?;
    let token = pf::token(&said.stderr).or_else(|| pf::token(&said.stdout));
    let token = token.ok_or_else(|| EgressError::Said {
        command: spec.to_string(),
        said: "no token".to_owned(),
    })?;
    let file = token_file(host, name);
    let failed = |source| EgressError::State {
        path: file.clone(),
        source,
    };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // Before anything can go wrong: else every further try would take one more.
    fs::write(&file, format!("{boot} {token}\n")).map_err(failed)?;
    uncomplaining(&spec, &said)
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
    // It may be on because others need it, and go off with them.
    match known_token(host, name) {
        Some((_, token)) if !is_void(host, &token)? => {}
        Some(_) => return lost("another tool made our reference to pf void".to_owned()),
        None => return lost("no reference of ours keeps pf on".to_owned()),
    }
    if let Some(why) = pf::unreached(&pfctl(host, &["-s", "rules"], None)?.stdout) {
        return lost(why);
    }
    // Where it is not told, the canary finds out, which flies over this interface.
    let interfaces = CommandSpec::new(&host.mac.pfctl, &["-s", "Interfaces", "-v"], TIMEOUT);
    if pf::skips_loopback(&command::run(&interfaces)?.stdout) {
        return lost(SKIPS.to_owned());
    }
    let loaded = match pfctl(host, &["-a", &anchor, "-s", "rules"], None) {
        Err(EgressError::Said { said, .. }) if said.contains("DIOCGETRULES") => {
            return lost(format!("there is no anchor `{anchor}`"));
        }
        other => pf::normal_form(&other?.stdout),
    };
    if loaded != rules {
        let why = difference(rules, &loaded);
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
    if let Some((session, token)) = known_token(host, name)
        && session == boot_session(host)?
    {
        // Somebody may have turned the filter off, which makes the token void and this fail.
        command::run(&CommandSpec::new(&host.mac.pfctl, &["-X", &token], TIMEOUT))?;
    }
    let file = token_file(host, name);
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EgressError::State {
            path: file,
            source: error,
        }),
        _ => Ok(()),
    }
}
