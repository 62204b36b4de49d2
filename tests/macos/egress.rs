//! pf, as a stand-in for pfctl keeps it: what ephemerd asks of it, what it makes of the answers, and what becomes of jobs.
//!
//! The stand-in puts what is loaded *and asked* into force with nftables in the Mac's own network namespace, so that
//! the canary and jobs meet it. `other-tool` does what other programs of a Mac do behind ephemerd's back.

mod jobs;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};

use serde_json::{Value, json};

use crate::stand::Mac;

const ANCHOR: &str = "com.apple/250.ephemerd";
const OTHER_TOKEN: &str = "11605101605051758694";
const SHADOW: &str = "pass quick all flags S/SA keep state";

/// A Mac with a filter, whose calls of pfctl are looked through when it ends.
struct Filtered(Mac);

impl Deref for Filtered {
    type Target = Mac;

    fn deref(&self) -> &Mac {
        &self.0
    }
}

impl DerefMut for Filtered {
    fn deref_mut(&mut self) -> &mut Mac {
        &mut self.0
    }
}

impl Drop for Filtered {
    /// Nothing was asked of pfctl that takes something away from others.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let own = format!("-a {ANCHOR} ");
        for call in self.calls("pfctl") {
            let shared = ["-n -v -f -", "-E"];
            let is_harmless = shared.contains(&call.as_str())
                || call.starts_with("-s ")
                || call.starts_with(&own)
                || call.strip_prefix("-X ").is_some_and(|token| token != OTHER_TOKEN);
            assert!(is_harmless, "pfctl {call}");
        }
        assert!(!self.top.join("state/pf-forbidden").exists());
    }
}

impl Filtered {
    fn new() -> Self {
        Self(Mac::with_filter(""))
    }

    /// One on which the rules are loaded.
    fn applied() -> Self {
        let mac = Self::new();
        let (code, text) = mac.egress("apply");
        assert_eq!(code, 0, "{text}");
        mac
    }

    /// Runs `ephemerd egress COMMAND`; its exit code, and what it said.
    fn egress(&self, command: &str) -> (i32, String) {
        let output = self.ephemerd(&["egress", command]);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn other_tool(&self, args: &[&str]) {
        let done = self.command("other-tool").args(args).status().unwrap();
        assert!(done.success(), "{args:?}");
    }

    /// How often pfctl was called so.
    fn count(&self, args: &str) -> usize {
        self.calls("pfctl").iter().filter(|call| *call == args).count()
    }

    fn tokens(&self) -> Vec<Value> {
        self.state("pf")["tokens"].as_array().unwrap().clone()
    }

    /// Runs a job that must not start, and what is said then.
    fn refused(&self) -> String {
        let ran = self.top.join("shared/ran");
        let (code, out, err) = self.exec(&format!("echo ran > {ran}; echo ran"));
        assert_eq!((code, out.as_str()), (125, ""), "{err}");
        assert!(!ran.exists(), "the command ran all the same");
        // The account's own folder is made by macOS when it is asked for.
        let mut remains = self.remains();
        remains.retain(|path| !path.contains("/folders/"));
        assert_eq!(remains, [""; 0], "{err}");
        err
    }
}

#[test]
fn applying_loads_the_anchor_turns_pf_on_once_and_tries_every_account() {
    let mac = Filtered::new();
    let (code, text) = mac.egress("status");
    assert_eq!(code, 1);
    assert!(text.contains("are not in force: pf is off"), "{text}");
    assert_eq!(mac.count("-E"), 0, "to look changes nothing");

    let (code, text) = mac.egress("apply");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("pf rules `ephemerd` loaded"), "{text}");
    assert!(text.contains("8 attempts, 0 not as they must be"), "{text}");
    let load = format!("-a {ANCHOR} -f -");
    assert_eq!((mac.count(&load), mac.count("-E")), (1, 1));
    let session = "0D8B5C55-7A1D-4C6B-9D33-3A5F3A0C1E77";
    let token = mac.tokens()[0].as_str().unwrap().to_owned();
    let kept = fs::read_to_string(mac.top.join("run/ephemerd/ephemerd.pf-token")).unwrap();
    assert_eq!(kept, format!("{session} {token}\n"));

    let (code, text) = mac.egress("apply");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("pf rules `ephemerd` were loaded already"), "{text}");
    assert_eq!((mac.count(&load), mac.count("-E")), (1, 1));
    let (code, text) = mac.egress("status");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("are loaded as they should be"), "{text}");
}

#[test]
fn every_start_of_the_mac_takes_one_token_of_its_own() {
    let mac = Filtered::applied();
    let before = mac.tokens();
    // The folder of the token is emptied then on a Mac, and need not be.
    mac.other_tool(&["restart"]);
    mac.write_state("boot", &json!("5E1B6A0A-0000-4C6B-9D33-000000000002"));
    let (code, text) = mac.egress("apply");
    assert_eq!(code, 0, "{text}");
    assert_eq!(mac.count("-E"), 2);
    assert_eq!(mac.tokens().len(), 1);
    assert_ne!(mac.tokens(), before);
    let kept = fs::read_to_string(mac.top.join("run/ephemerd/ephemerd.pf-token")).unwrap();
    assert!(kept.starts_with("5E1B6A0A-"), "{kept}");
}

#[test]
fn what_others_did_to_our_rules_is_named_and_mended() {
    let mac = Filtered::applied();
    let pass = "pass out quick proto tcp from any to 10.0.0.0/8 no state";
    let (mut turned_on, mut loaded) = (1, 1);
    for (change, why) in [
        (vec!["disable"], "pf is off"),
        (vec!["void"], "another tool made our reference to pf void"),
        (
            vec!["add", ANCHOR, pass],
            "`pass out quick inet proto tcp from any to 10.0.0.0/8 no state` does not belong there",
        ),
        (vec!["drop", ANCHOR], "<ephemerd_denied> user = "),
        (vec!["load", ANCHOR, ""], "port = domain user = "),
        (
            vec!["table", ANCHOR, "ephemerd_denied", "10.0.0.0/8"],
            "table <ephemerd_denied> of anchor `com.apple/250.ephemerd` was changed",
        ),
    ] {
        mac.other_tool(&change);
        let (code, text) = mac.egress("status");
        assert_eq!(code, 1, "{change:?}: {text}");
        assert!(text.contains(why), "{change:?}: {text}");
        let (code, text) = mac.egress("apply");
        assert_eq!(code, 0, "{change:?}: {text}");
        assert!(text.contains(" loaded\n"), "{change:?}: {text}");
        loaded += 1;
        turned_on += usize::from(change.len() == 1);
    }
    assert_eq!(mac.count(&format!("-a {ANCHOR} -f -")), loaded);
    assert_eq!(mac.count("-E"), turned_on);
    let (code, text) = mac.egress("test");
    assert_eq!(code, 0, "{text}");
}

#[test]
fn an_entry_that_takes_addresses_out_of_the_table_is_seen() {
    let mac = Filtered::applied();
    let pf = mac.state("pf");
    let nets = &pf["anchors"][ANCHOR]["tables"]["ephemerd_denied"]["nets"];
    let nets = nets.as_array().unwrap().iter().map(|net| net.as_str().unwrap());
    let change = ["table", ANCHOR, "ephemerd_denied"].into_iter().chain(nets);
    mac.other_tool(&change.chain(["!10.1.0.0/16"]).collect::<Vec<_>>());
    let (code, text) = mac.egress("status");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("table <ephemerd_denied>"), "{text}");
}

#[test]
fn what_is_wrong_with_the_main_ruleset_is_named_and_left_to_its_owner() {
    for (change, why) in [
        (
            vec!["flush"],
            "the main ruleset has no `anchor \"com.apple/*\" all`",
        ),
        (
            vec!["main", SHADOW],
            "`pass quick all flags S/SA keep state` of the main",
        ),
    ] {
        let mac = Filtered::applied();
        mac.other_tool(&change);
        let main = mac.state("pf")["main"].clone();
        let (code, text) = mac.egress("status");
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(why), "{text}");
        let (code, text) = mac.egress("apply");
        assert_ne!(code, 0, "{text}");
        assert!(text.contains(why), "{text}");
        let error = mac.refused();
        assert!(error.contains(why), "{error}");
        assert_eq!(mac.state("pf")["main"], main);
        assert_eq!(
            mac.count("-E"),
            1,
            "what does not help is not done again and again"
        );
    }
}

#[test]
fn a_rule_behind_the_hook_or_without_quick_is_nobodys_concern() {
    let mac = Filtered::applied();
    mac.other_tool(&["main", "pass in all flags S/SA keep state"]);
    let (code, text) = mac.egress("status");
    assert_eq!(code, 0, "{text}");
    let (code, text) = mac.egress("test");
    assert_eq!(code, 0, "{text}");
}

#[test]
fn what_no_comparison_sees_the_canary_does() {
    let mac = Filtered::applied();
    mac.other_tool(&["load", "com.apple/100.other", "pass quick all no state"]);
    let (code, text) = mac.egress("status");
    assert_eq!(code, 1, "{text}");
    // All is loaded, on and asked.
    assert!(
        text.contains("do not hold: `_ephemerd1` sends to 192.0.0.8"),
        "{text}"
    );
    let (code, text) = mac.egress("test");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("allow INSTEAD OF deny"), "{text}");
    let error = mac.refused();
    assert!(error.contains("the egress filter does not hold"), "{error}");
    assert!(error.contains("gets allow instead of deny"), "{error}");
}

#[test]
fn a_loopback_interface_that_pf_skips_is_named_or_else_found_by_the_canary() {
    let mac = Filtered::applied();
    mac.other_tool(&["skip"]);
    let (code, text) = mac.egress("status");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("pf skips lo0"), "{text}");
    let error = mac.refused();
    assert!(
        error.contains("hint: take `set skip on lo0` out of the main ruleset"),
        "{error}"
    );
    mac.fail(
        "pfctl",
        "-s Interfaces",
        100,
        &json!({"code": 1, "stderr": "usage: pfctl"}),
    );
    let error = mac.refused();
    assert!(error.contains("the egress filter does not hold"), "{error}");
}

#[test]
fn removing_empties_our_anchor_and_gives_back_our_token_and_no_more() {
    let mac = Filtered::new();
    mac.other_tool(&["need", OTHER_TOKEN]);
    mac.other_tool(&[
        "load",
        "com.apple/250.other",
        "block drop quick proto tcp from any to 198.51.100.1",
    ]);
    mac.egress("apply");
    assert_eq!(mac.tokens().len(), 2);
    let (code, text) = mac.egress("remove");
    assert_eq!((code, text.as_str()), (0, ""));
    let pf = mac.state("pf");
    assert_eq!(pf["anchors"][ANCHOR], json!({"rules": [], "tables": {}}));
    assert_eq!(
        pf["anchors"]["com.apple/250.other"]["rules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!((&pf["tokens"], &pf["on"]), (&json!([OTHER_TOKEN]), &json!(true)));
    let canary = mac
        .network
        .as_ref()
        .unwrap()
        .within(|| TcpListener::bind(("192.0.0.8", 0)));
    assert_eq!(canary.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    let (code, text) = mac.egress("remove");
    assert_eq!((code, text.as_str()), (0, ""), "what is not there is no error");

    // A token that somebody has made void is no error either.
    mac.egress("apply");
    mac.other_tool(&["disable"]);
    let (code, text) = mac.egress("remove");
    assert_eq!((code, text.as_str()), (0, ""));
    assert!(!mac.top.join("run/ephemerd/ephemerd.pf-token").exists());
}
