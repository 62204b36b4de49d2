//! nftables, by nft(8).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{EgressError, TIMEOUT, difference, must};
use crate::egress::{Blocked, nft};
use crate::host::Host;
use crate::host::command::{self, CommandSpec};

/// Loads standard input and prints what that has become; as root of a network namespace that ends with it.
const TRY_OUT: &str = "\"$1\" -f - && exec \"$1\" -j list table inet \"$2\"";

/// What the kernel makes of `text`, a table called `name`.
pub(super) fn form(host: &Host, name: &str, text: &str) -> Result<Value, EgressError> {
    let args = [
        "--net",
        "/bin/sh",
        "-c",
        TRY_OUT,
        "sh",
        host.tools.nft.as_str(),
        name,
    ];
    let mut spec = CommandSpec::new(&host.tools.unshare, &args, TIMEOUT);
    spec.stdin = Some(text.to_owned());
    let printed = must(&spec)?.stdout;
    read(&spec, &printed).map(|listing| listing.rules)
}

fn read(spec: &CommandSpec, printed: &str) -> Result<nft::Listing, EgressError> {
    nft::listing(printed).map_err(|said| EgressError::Said {
        command: spec.to_string(),
        said,
    })
}

/// One transaction: on an error nothing of it is loaded (nft(8)).
pub(super) fn load(host: &Host, text: &str) -> Result<(), EgressError> {
    let mut spec = CommandSpec::new(&host.tools.nft, &["-f", "-"], TIMEOUT);
    spec.stdin = Some(text.to_owned());
    must(&spec).map(drop)
}

fn list(host: &Host, name: &str) -> CommandSpec {
    CommandSpec::new(&host.tools.nft, &["-j", "list", "table", "inet", name], TIMEOUT)
}

pub(super) fn verify(host: &Host, name: &str, form: &Value) -> Result<BTreeMap<u32, Blocked>, EgressError> {
    let lost = |why: String| EgressError::Lost { why };
    let spec = list(host, name);
    let output = command::run(&spec)?;
    if !output.status.success() && output.stderr.contains("No such file or directory") {
        return Err(lost(format!("there is no table `inet {name}`")));
    }
    let listing = read(&spec, &output.require_success(&spec)?.stdout)?;
    if listing.rules == *form {
        return Ok(listing.blocked);
    }
    let items = |value: &Value| {
        value
            .get("nftables")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let difference = difference(&items(form), &items(&listing.rules));
    Err(lost(format!("table `inet {name}` was changed: {difference}")))
}

pub(super) fn remove(host: &Host, name: &str) -> Result<(), EgressError> {
    // Making it first keeps a table that is not there from being an error.
    load(host, &format!("table inet {name}\ndelete table inet {name}\n"))
}
