//! Which rule decides, where its message is seen, and how long it may be.

use super::super::Outcome::{Allowed, Denied, Refused, Tagged, Untagged};
use super::super::{Believed, Probe};
use super::{FAMILIES, FAMILIES_BUT_WRITING, READ, TRUE, WRITE, probe};

/// Which rule decides.
pub(super) fn rules() -> Vec<Probe> {
    let deny_write = "(deny file-write-data (literal \"{work}/file\"))";
    let allow_write = "(allow file-write-data (literal \"{work}/file\"))";
    let deny_read = "(deny file-read* (literal \"{work}/file\"))";
    let write = |probe: Probe| Probe {
        decides: Some(("file-write-data", "{work}/file")),
        ..probe
    };
    let read = |probe: Probe| Probe {
        decides: Some(("file-read-data", "{work}/file")),
        ..probe
    };
    vec![
        read(Probe {
            believed: Believed::Switch(|semantics| match semantics.unfiltered_exact_first {
                true => "exact-first",
                false => "filtered-first",
            }),
            ..probe(
                "P1",
                "does a rule without filters for the operation go before one with filters for its parent?",
                READ,
                &[
                    &["(allow default)", deny_read],
                    &["(allow default)", deny_read, "(allow file-read-data)"],
                ],
                &[
                    ("exact-first", &[Denied, Allowed]),
                    ("filtered-first", &[Denied, Denied]),
                ],
            )
        }),
        read(probe(
            "specific-operation",
            "does a rule for the operation go before a later one for its parent?",
            READ,
            &[
                &["(allow default)", deny_read],
                &[
                    "(allow default)",
                    "(allow file-read-data (literal \"{work}/file\"))",
                    deny_read,
                ],
            ],
            &[("yes", &[Denied, Allowed]), ("no", &[Denied, Denied])],
        )),
        write(probe(
            "filtered-before-unfiltered",
            "does a rule with a filter that matches go before a later one without?",
            WRITE,
            &[
                &["(allow default)", "(deny file-write-data)"],
                &["(allow default)", allow_write, "(deny file-write-data)"],
            ],
            &[("yes", &[Denied, Allowed]), ("no", &[Denied, Denied])],
        )),
        write(probe(
            "last-of-equals",
            "does the last of two rules for one operation with filters that match decide?",
            WRITE,
            &[
                &["(allow default)", allow_write],
                &["(allow default)", allow_write, deny_write],
            ],
            &[("yes", &[Allowed, Denied]), ("no", &[Allowed, Allowed])],
        )),
        write(probe(
            "filters-are-alternatives",
            "does a rule with two filters match where only one of them does?",
            WRITE,
            &[
                &["(allow default)"],
                &[
                    "(allow default)",
                    "(deny file-write-data (literal \"{work}/other\") (vnode-type REGULAR-FILE))",
                ],
            ],
            &[("yes", &[Allowed, Denied]), ("no", &[Allowed, Allowed])],
        )),
    ]
}

/// Where a rule's message is seen.
pub(super) fn messages() -> Vec<Probe> {
    let tagged = "(deny default (with message \"{tag}\"))";
    let rule = "(deny file-write-data (literal \"{work}/file\"))";
    let tagged_rule = "(deny file-write-data (literal \"{work}/file\") (with message \"{tag}\"))";
    vec![
        Probe {
            decides: Some(("file-write-data", "{work}/file")),
            ..probe(
                "message-of-default",
                "does the log have the message of `default` where that decides?",
                WRITE,
                &[
                    &["(deny default)", FAMILIES_BUT_WRITING],
                    &[tagged, FAMILIES_BUT_WRITING],
                ],
                &[("yes", &[Untagged, Tagged]), ("no", &[Untagged, Untagged])],
            )
        },
        Probe {
            decides: Some(("file-write-data", "{work}/file")),
            believed: Believed::Switch(|semantics| match semantics.default_message_suffices {
                true => "yes",
                false => "no",
            }),
            ..probe(
                "P8",
                "does the message of `default` go with denials by rules that have none?",
                WRITE,
                &[&[tagged, FAMILIES, rule], &[tagged, FAMILIES, tagged_rule]],
                &[("yes", &[Tagged, Tagged]), ("no", &[Untagged, Tagged])],
            )
        },
    ]
}

/// How long rules may be.
pub(super) fn limits() -> Vec<Probe> {
    // A name of a hundred characters, so often that two rules of this length are over 65535 bytes and one is not.
    let long = |first: usize, count: usize| {
        let literals: Vec<String> = (first..first + count)
            .map(|number| format!("(literal \"/nowhere/{number:0>91}\")"))
            .collect();
        format!("(deny file-write-data {})", literals.join(" "))
    };
    vec![
        Probe {
            believed: Believed::Switch(|semantics| match semantics.limit_per_rule {
                true => "rule",
                false => "operation",
            }),
            ..probe(
                "P9",
                "is the limit of 65535 bytes one for each rule, or for all of an operation's together?",
                TRUE,
                &[
                    &["(allow default)", &long(0, 400)],
                    &["(allow default)", &long(0, 400), &long(400, 400)],
                ],
                &[("rule", &[Allowed, Allowed]), ("operation", &[Allowed, Refused])],
            )
        },
        probe(
            "long-rule",
            "is a rule of more than 65535 bytes refused?",
            TRUE,
            &[&["(allow default)"], &["(allow default)", &long(0, 1000)]],
            &[("yes", &[Allowed, Refused]), ("no", &[Allowed, Allowed])],
        ),
    ]
}
