//! The language of macOS's packet filter: rules read back from text, and what pfctl(8) says.
//!
//! Nothing of this was tried on a Mac by us. What pfctl prints was published by others, who ran it on macOS 26.5.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Blocked;
use super::rules::{Chains, Line, ReadError, Verdict};
use super::words::Words;

/// The anchor of the stock configuration that ours hangs on: its rules go through the children of `com.apple`, in
/// the order of their names, and no further down (`pf_step_into_anchor` in xnu's `bsd/net/pf.c`).
pub const PARENT: &str = "com.apple";

/// What the main ruleset must have: the stock line through which our anchor is asked.
const HOOK: &str = "anchor \"com.apple/*\" all";

/// What `-s References` says where nobody needs the filter.
const NO_REFERENCES: &str = "No pf starter references held";

/// What pfctl writes to standard error though nothing is wrong.
const HARMLESS: [&str; 10] = [
    "No ALTQ support in kernel",
    "ALTQ related functions disabled",
    "pfctl: Use of -f option, could result in flushing of rules",
    "present in the main ruleset added by the system at startup.",
    "See /etc/pf.conf for further details.",
    "pf enabled",
    NO_REFERENCES,
    "rules cleared",
    "nat cleared",
    "dummynet cleared",
];

/// The anchor of the installation whose table is called `name`. Not one of the names that xnu takes for its own
/// (`com.apple/250.ApplicationFirewall` and others): beside those alone, Network.framework may go around the sockets
/// that `user` rules look at.
pub fn anchor(name: &str) -> String {
    format!("{PARENT}/250.{name}")
}

/// Reads the text that [`super::render`] writes for macOS.
///
/// # Errors
/// A line that is not written so.
pub fn read(text: &str) -> Result<Chains, ReadError> {
    let mut tables: BTreeMap<&str, Vec<IpNet>> = BTreeMap::new();
    let mut chains = Chains::default();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = Words::of(number, line);
        if words.take("table") {
            let name = words.must("a name")?;
            words.expect("const")?;
            tables.insert(name, words.nets()?);
            words.end()?;
            continue;
        }
        let (uid, line) = rule(&mut words, (number, line), &tables)?;
        words.end()?;
        chains.by_uid.entry(uid).or_default().push(line);
    }
    Ok(chains)
}

fn rule(
    words: &mut Words<'_>,
    (number, text): (usize, &str),
    tables: &BTreeMap<&str, Vec<IpNet>>,
) -> Result<(u32, Line), ReadError> {
    let verdict = match words.must("a rule")? {
        "block" => {
            words.expect("return")?;
            Verdict::Deny
        }
        "pass" => Verdict::Allow,
        other => return Err(words.error(format!("`{other}` begins no rule"))),
    };
    words.expect("out")?;
    words.take("log");
    // Without it a later rule would decide.
    words.expect("quick")?;
    let mut line = Line {
        number,
        text: text.to_owned(),
        verdict,
        on_loopback: false,
        nets: None,
        transports: vec![],
        ports: vec![],
    };
    if words.take("on") {
        words.expect("lo0")?;
        line.on_loopback = true;
    }
    let family = if words.take("inet") {
        Some(true)
    } else {
        words.take("inet6").then_some(false)
    };
    words.expect("proto")?;
    let names = words.values("a protocol")?;
    let read = names.iter().map(|name| words.parse(name, "tcp or udp"));
    line.transports = read.collect::<Result<_, _>>()?;
    for word in ["from", "any", "to"] {
        words.expect(word)?;
    }
    line.nets = addresses(words, tables)?;
    if let (Some(v4), Some(nets)) = (family, &mut line.nets) {
        nets.retain(|net| matches!(net, IpNet::V4(_)) == v4);
    }
    if words.take("port") {
        line.ports = words.ports(':')?;
    }
    words.expect("user")?;
    let uid = words.must("an account's number")?;
    let uid = words.parse(uid, "an account's number")?;
    match verdict {
        Verdict::Deny => {
            words.expect("label")?;
            words.must("a label")?;
        }
        Verdict::Allow => {
            words.expect("no")?;
            words.expect("state")?;
        }
    }
    Ok((uid, line))
}

fn addresses(
    words: &mut Words<'_>,
    tables: &BTreeMap<&str, Vec<IpNet>>,
) -> Result<Option<Vec<IpNet>>, ReadError> {
    if words.take("any") {
        return Ok(None);
    }
    for (name, nets) in tables {
        if words.take(name) {
            return Ok(Some(nets.clone()));
        }
    }
    words.nets().map(Some)
}

/// The rules in a text of pfctl's own, which says other things as well: what `-nv -f` makes of a file, and what `-s
/// rules` shows of an anchor. Of the same rules both print the same.
pub fn normal_form(printed: &str) -> Vec<String> {
    let is_rule = |line: &&str| line.starts_with("block ") || line.starts_with("pass ");
    printed
        .lines()
        .map(str::trim_end)
        .filter(is_rule)
        .map(str::to_owned)
        .collect()
}

/// The addresses that `-t TABLE -T show` prints, one a line.
///
/// # Errors
/// The first line that is none. An entry with `!` takes something out of the table, so it must not be passed over.
pub fn table(printed: &str) -> Result<Vec<IpNet>, &str> {
    let net = |text: &str| {
        let address = || text.parse().map(|address: std::net::IpAddr| address.into());
        text.parse::<IpNet>().or_else(|_| address())
    };
    let lines = printed.lines().map(str::trim).filter(|line| !line.is_empty());
    let nets: Result<Vec<IpNet>, &str> = lines.map(|line| net(line).map_err(|_| line)).collect();
    Ok(IpNet::aggregate(&nets?))
}

/// Whether `-s info` says that the filter is on.
pub fn is_enabled(info: &str) -> bool {
    info.lines()
        .any(|line| line.trim_start().starts_with("Status: Enabled"))
}

/// Why our anchor is not asked, by the main ruleset that `-s rules` shows; `None` when it is.
pub fn unreached(main: &str) -> Option<String> {
    let rules: Vec<&str> = main
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let Some(hook) = rules.iter().position(|rule| *rule == HOOK) else {
        return Some(format!("the main ruleset has no `{HOOK}`"));
    };
    // What comes in is none of our packets; the direction stands before `quick`.
    let decides = |rule: &&&str| {
        let before = rule.split_whitespace().take_while(|word| *word != "quick");
        let direction_and_more: Vec<&str> = before.collect();
        rule.split_whitespace().any(|word| word == "quick") && !direction_and_more.contains(&"in")
    };
    let shadow = rules[..hook].iter().find(decides);
    shadow.map(|rule| format!("`{rule}` of the main ruleset decides before ours are asked"))
}

/// Whether `-s Interfaces -v` says that the filter does not look at the loopback interface, as `set skip on lo0` of
/// pf.conf(5) makes it.
pub fn skips_loopback(interfaces: &str) -> bool {
    interfaces
        .lines()
        .any(|line| line.split_whitespace().eq(["lo0", "(skip)"]))
}

/// The token that `-E` prints: whoever gives it back with `-X` no longer needs the filter.
pub fn token(printed: &str) -> Option<String> {
    printed.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        let is_token =
            name.trim() == "Token" && !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        is_token.then(|| value.to_owned())
    })
}

/// Whether `token` is among those that keep the filter on, by what `-s References` prints; `None` where that is not
/// what pfctl of macOS 26.5 prints.
pub fn is_held(references: &str, token: &str) -> Option<bool> {
    let mut lines = references.lines().map(str::trim);
    if lines.clone().any(|line| line == NO_REFERENCES) {
        return Some(false);
    }
    lines.find(|line| *line == "TOKENS:")?;
    Some(lines.any(|line| line.split_whitespace().any(|word| word == token)))
}

/// The first line on standard error that says that something is wrong: pfctl often ends with 0 all the same.
pub fn complaint(stderr: &str) -> Option<&str> {
    let is_harmless = |line: &&str| {
        line.is_empty()
            || HARMLESS.contains(line)
            || line.starts_with("Token :")
            || line.ends_with(" tables deleted.")
            || line.ends_with(" table addresses deleted.")
            || line.ends_with(" states cleared")
    };
    stderr.lines().map(str::trim).find(|line| !is_harmless(line))
}

/// What was blocked, by slot, from the labels that `-s labels` prints: `LABEL EVALUATIONS PACKETS BYTES …`.
pub fn blocked(labels: &str) -> BTreeMap<u32, Blocked> {
    let mut blocked: BTreeMap<u32, Blocked> = BTreeMap::new();
    for line in labels.lines() {
        let mut words = line.split_whitespace();
        let slot = words
            .next()
            .and_then(|label| label.strip_prefix("ephemerd:")?.parse().ok());
        let packets = words.nth(1).and_then(|packets| packets.parse::<u64>().ok());
        if let (Some(slot), Some(packets)) = (slot, packets) {
            blocked.entry(slot).or_default().packets += packets;
        }
    }
    blocked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_ruleset_asks_our_anchor() {
        let stock = "scrub-anchor \"com.apple/*\" all fragment reassemble\nanchor \"com.apple/*\" all\n\
                     anchor \"com.apple.internet-sharing\" all\n";
        assert_eq!(unreached(stock), None);
        assert_eq!(
            unreached(&format!("pass in all flags S/SA keep state\n{stock}")),
            None
        );
    }

    #[test]
    fn a_flushed_or_shadowed_ruleset_does_not_ask_it() {
        assert!(unreached("").unwrap().contains("has no `anchor"));
        assert!(unreached("anchor \"com.apple.internet-sharing\" all\n").is_some());
        let shadowed =
            unreached("pass quick all flags S/SA keep state\nanchor \"com.apple/*\" all\n").unwrap();
        assert!(shadowed.starts_with("`pass quick all"), "{shadowed}");
        assert!(unreached("block drop out quick on en0 all\nanchor \"com.apple/*\" all\n").is_some());
        let of_what_comes_in = "block drop in quick on en0 all\nanchor \"com.apple/*\" all\n";
        assert_eq!(unreached(of_what_comes_in), None);
        assert_eq!(
            unreached("anchor \"com.apple/*\" all\nblock drop quick all\n"),
            None
        );
    }

    #[test]
    fn what_pfctl_says_is_told_apart() {
        assert!(is_enabled(
            "Status: Enabled for 55 days 16:31:28          Debug: Urgent\n"
        ));
        assert!(!is_enabled(
            "Status: Disabled for 0 days 00:00:01         Debug: Urgent\n"
        ));
        assert!(!is_enabled(""));
        let interfaces = "all\n\tCleared:     Mon Nov  2 10:00:00 2026\nen0\nlo0";
        assert!(!skips_loopback(interfaces));
        assert!(skips_loopback(&format!(
            "{interfaces} (skip)\n\tReferences:  0\n"
        )));
        let enabled = "No ALTQ support in kernel\nALTQ related functions disabled\npf enabled\nToken : 15447822800193098702\n";
        assert_eq!(token(enabled).as_deref(), Some("15447822800193098702"));
        assert_eq!(token("Token : \n"), None);
        assert_eq!(complaint(enabled), None);
        assert_eq!(
            complaint("No ALTQ support in kernel\npfctl: DIOCGETRULES: Invalid argument\n"),
            Some("pfctl: DIOCGETRULES: Invalid argument")
        );
        assert_eq!(
            complaint("stdin:1: syntax error\n"),
            Some("stdin:1: syntax error")
        );
    }

    #[test]
    fn blocked_packets_are_added_up_by_slot() {
        let labels = "ephemerd:1 42 3 180 0 0 3 180\nephemerd:1 10 2 120\nephemerd:2 1 0 0\nother 5 5 5\n";
        let found = blocked(labels);
        assert_eq!(found.len(), 2);
        assert_eq!((found[&1].packets, found[&2].packets), (5, 0));
    }

    #[test]
    fn tables_are_read_as_they_are_shown() {
        let shown = "   10.0.0.0/8\n   192.0.0.8\n   fc00::/7\n";
        let nets = ["10.0.0.0/8", "192.0.0.8/32", "fc00::/7"].map(|net| net.parse::<IpNet>().unwrap());
        assert_eq!(table(shown), Ok(nets.to_vec()));
        assert_eq!(table(&format!("{shown}  !10.1.0.0/16\n")), Err("!10.1.0.0/16"));
    }
    #[test]
    fn a_reference_is_held_when_its_token_is_listed() {
        let listed = "TOKENS:\nPID      Process Name                 TOKEN                    TIMESTAMP\n\
                      42671    pfd                          11605101605051758694     56 days 08:17:11\n";
        assert_eq!(is_held(listed, "11605101605051758694"), Some(true));
        assert_eq!(is_held(listed, "1160510160505175869"), Some(false));
        assert_eq!(is_held("No pf starter references held\n", "1"), Some(false));
        assert_eq!(is_held("usage: pfctl …\n", "1"), None);
    }

    /// What is wrong with a line of an anchor, which must be refused.
    fn refusal(line: &str) -> String {
        read(&format!("table <t> const {{ 10.0.0.0/8 }}\n{line}\n"))
            .expect_err(line)
            .to_string()
    }

    #[test]
    fn rules_that_ephemerd_does_not_write_are_refused() {
        let whole = "block return out quick proto tcp from any to <t> port 22 user 451 label \"ephemerd:1\"";
        assert_eq!(
            read(&format!("table <t> const {{ 10.0.0.0/8 }}\n{whole}\n"))
                .unwrap()
                .by_uid[&451]
                .len(),
            1
        );
        for (from, to, why) in [
            (" quick", "", "`proto` stands where `quick` must"),
            ("block return", "block drop", "`drop` stands where `return` must"),
            ("block return", "block", "`out` stands where `return` must"),
            (" out", " in", "`in` stands where `out` must"),
            (" out", "", "`quick` stands where `out` must"),
            (" out quick", " quick out", "`quick` stands where `out` must"),
            ("451", "_ephemerd1", "`_ephemerd1` is not an account's number"),
            ("451", "= 451", "`=` is not an account's number"),
            (" user 451", "", "`label` stands where `user` must"),
            ("from any", "from 10.0.0.1", "`10.0.0.1` stands where `any` must"),
            ("<t>", "<other>", "`<other>` is not an address"),
            ("proto tcp", "proto icmp", "`icmp` is not tcp or udp"),
            ("proto tcp ", "", "`from` stands where `proto` must"),
            ("port 22", "port 22 port 23", "`port` stands where `user` must"),
            ("quick", "quick on en0", "`en0` stands where `lo0` must"),
            ("block return", "match", "`match` begins no rule"),
            ("ephemerd:1\"", "ephemerd:1\" tag x", "`tag` is not expected here"),
            (
                " label \"ephemerd:1\"",
                " no state",
                "`no` stands where `label` must",
            ),
        ] {
            let error = refusal(&whole.replacen(from, to, 1));
            assert!(
                error.starts_with("line 2 of the rules: ") && error.contains(why),
                "{error}"
            );
        }
        let pass = "pass out quick proto tcp from any to <t> user 451 no state";
        // A state would let packets pass by rules that are loaded later.
        assert!(refusal(&pass.replace(" no state", " keep state")).contains("`keep` stands where `no` must"));
        assert!(refusal(&pass.replace(" no state", "")).contains("`no` is missing"));
        assert!(refusal(&format!("{pass} all")).contains("`all` is not expected here"));
        assert!(refusal("table <u> persist { 10.0.0.0/8 }").contains("`persist` stands where `const` must"));
        assert!(refusal("table <u> const { 10.0.0.0/8").contains("`}` is missing"));
        assert!(refusal("set skip on lo0").contains("`set` begins no rule"));
    }
}
