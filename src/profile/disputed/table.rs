//! The questions.

use super::Outcome::{Allowed, Denied, Refused, Tagged, Untagged};
use super::{Belief, Believed, Outcome, Probe, Trial, by_itself};

/// What writes to the file of a trial: one open(2) for writing, and nothing else on it.
const WRITE: &[&str] = &["/bin/sh", "-c", "echo y > work/file"];
/// What reads it.
const READ: &[&str] = &["/bin/sh", "-c", ": < work/file"];
/// What does nothing; it shows whether a profile is accepted, and what every program needs.
const TRUE: &[&str] = &["/usr/bin/true"];

/// Allows what the programs above need and what asks `default`, by the names of whole families, so that nothing but
/// operations without a parent is left to itself. Only names that every release has had.
const FAMILIES: &str = "(allow distributed-notification-post file* iokit* ipc* mach* network* process* pseudo-tty signal \
    sysctl* system* user-preference*)";

/// The same, but for writing.
const FAMILIES_BUT_WRITING: &str = "(allow distributed-notification-post file-ioctl file-read* file-search iokit* ipc* \
    mach* network* process* pseudo-tty signal sysctl* system* user-preference*)";

/// Every question, in the order they are asked.
pub fn table() -> Vec<Probe> {
    let mut probes = precedence();
    probes.extend(terminals());
    probes.extend(processes());
    probes.extend(addresses());
    probes.extend(paths());
    probes.extend(messages());
    probes.extend(limits());
    probes
}

/// A question about what the trial's rules make of `act`; the rest is filled in by who asks.
fn probe(
    id: &'static str,
    question: &'static str,
    act: &[&'static str],
    trials: &[&[&str]],
    beliefs: &[(&'static str, &[Outcome])],
) -> Probe {
    let trial = |rules: &&[&str]| Trial {
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
    };
    let belief = |(answer, outcomes): &(&'static str, &[Outcome])| Belief {
        answer,
        outcomes: outcomes.to_vec(),
    };
    Probe {
        id,
        question,
        setup: "",
        cleanup: "",
        act: act.to_vec(),
        victim: false,
        decides: None,
        trials: trials.iter().map(trial).collect(),
        beliefs: beliefs.iter().map(belief).collect(),
        believed: Believed::Always(beliefs[0].0),
    }
}

/// Which rule decides.
fn precedence() -> Vec<Probe> {
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

/// A question about an operation without a parent: what is it when no rule names it, under `(deny default)`? The
/// trials deny it, say nothing and allow it; the first and the last show that it is this operation that counts.
fn terminal(
    id: &'static str,
    operation: &'static str,
    question: &'static str,
    act: &[&'static str],
) -> Probe {
    let base = ["(deny default)".to_owned(), FAMILIES.to_owned()];
    let with = |rule: &[String]| Trial {
        rules: [&base[..], rule].concat(),
    };
    let named = |verdict: &str| format!("({verdict} {operation})");
    Probe {
        trials: vec![with(&[named("deny")]), with(&[]), with(&[named("allow")])],
        believed: Believed::Terminal(operation),
        decides: operation
            .starts_with("file-")
            .then_some((operation, "{work}/file")),
        ..probe(
            id,
            question,
            act,
            &[],
            &[
                ("allowed", &[Denied, Allowed, Allowed]),
                ("denied", &[Denied, Denied, Allowed]),
            ],
        )
    }
}

/// What operations without a parent are by themselves.
fn terminals() -> Vec<Probe> {
    let needs = |setup: &'static str, probe: Probe| Probe { setup, ..probe };
    vec![
        Probe {
            believed: Believed::Switch(|semantics| by_itself(semantics.file_map_executable)),
            ..terminal(
                "P2",
                "file-map-executable",
                "is mapping a library allowed where no rule names it?",
                &["/bin/cat", "/dev/null"],
            )
        },
        Probe {
            believed: Believed::Switch(|semantics| by_itself(semantics.file_write_setugid)),
            ..terminal(
                "P3",
                "file-write-setugid",
                "is making a file set-uid allowed where no rule names it?",
                &["/bin/chmod", "4755", "work/file"],
            )
        },
        terminal(
            "file-link",
            "file-link",
            "are hard links allowed where no rule names them?",
            &["/bin/ln", "work/file", "work/link"],
        ),
        terminal(
            "file-clone",
            "file-clone",
            "are clones of files allowed where no rule names them?",
            &["/bin/cp", "-c", "work/file", "work/clone"],
        ),
        needs(
            "test -x /usr/bin/lockf",
            terminal(
                "file-lock",
                "file-lock",
                "are locks on files allowed where no rule names them?",
                &["/usr/bin/lockf", "-t", "0", "work/file", "/usr/bin/true"],
            ),
        ),
        needs(
            "test -x look",
            Probe {
                victim: true,
                ..terminal(
                    "process-info",
                    "process-info*",
                    "is looking at other processes allowed where no rule names it?",
                    &["/bin/sh", "-c", "./look pidinfo $(cat victim)"],
                )
            },
        ),
        needs(
            "test -x look",
            terminal(
                "dynamic-code-generation",
                "dynamic-code-generation",
                "is memory for generated code allowed where no rule names it?",
                &["./look", "jit", "0"],
            ),
        ),
        terminal(
            "darwin-notification-post",
            "darwin-notification-post",
            "are notifications allowed where no rule names them?",
            &["/usr/bin/notifyutil", "-p", "dev.ephemerd.probe"],
        ),
        terminal(
            "nvram",
            "nvram*",
            "are the firmware's variables readable where no rule names them?",
            &["/bin/sh", "-c", "nvram -p | grep -q ."],
        ),
        terminal(
            "iokit-get-properties",
            "iokit-get-properties",
            "are properties of devices readable where no rule names them?",
            &[
                "/bin/sh",
                "-c",
                "ioreg -d 2 -c IOPlatformExpertDevice | grep -q IOPlatformUUID",
            ],
        ),
        terminal(
            "socket-ioctl",
            "socket-ioctl",
            "are ioctls on sockets allowed where no rule names them?",
            &["/bin/sh", "-c", "ifconfig lo0 | grep -q 127.0.0.1"],
        ),
        terminal(
            "syscall",
            "syscall*",
            "are system calls allowed where no rule names them?",
            TRUE,
        ),
        terminal(
            "system-fcntl",
            "system-fcntl",
            "is fcntl allowed where no rule names it?",
            TRUE,
        ),
        terminal(
            "mach-bootstrap",
            "mach-bootstrap",
            "is asking launchd for services allowed where no rule names it?",
            &["/usr/bin/notifyutil", "-g", "dev.ephemerd.probe"],
        ),
        terminal(
            "process-exec-update-label",
            "process-exec-update-label",
            "is starting programs allowed where no rule names their label?",
            TRUE,
        ),
    ]
}

/// What a job sees of other processes.
fn processes() -> Vec<Probe> {
    vec![
        Probe {
            victim: true,
            believed: Believed::Switch(|semantics| match semantics.same_sandbox_by_text {
                true => "yes",
                false => "no",
            }),
            ..probe(
                "P4",
                "are two runs of sandbox-exec with the same profile the same sandbox to `same-sandbox`?",
                &["/bin/sh", "-c", "kill -TERM $(cat victim)"],
                &[
                    &["(allow default)", "(deny signal)", "(allow signal (target self))"],
                    &[
                        "(allow default)",
                        "(deny signal)",
                        "(allow signal (target self))",
                        "(allow signal (target same-sandbox))",
                    ],
                ],
                &[("no", &[Denied, Denied]), ("yes", &[Denied, Allowed])],
            )
        },
        Probe {
            victim: true,
            setup: "test -x look",
            decides: Some(("sysctl-read", "kern.procargs2")),
            believed: Believed::Switch(|semantics| match semantics.procargs_has_name {
                true => "yes",
                false => "no",
            }),
            ..probe(
                "P5",
                "can reading other processes' arguments be denied by the name kern.procargs2?",
                &["/bin/sh", "-c", "./look procargs $(cat victim)"],
                &[
                    &[
                        "(allow default)",
                        "(deny process-info*)",
                        "(allow process-info* (target self))",
                    ],
                    &[
                        "(allow default)",
                        "(deny process-info*)",
                        "(allow process-info* (target self))",
                        "(deny sysctl-read (sysctl-name-prefix \"kern.procargs\"))",
                    ],
                ],
                &[("no", &[Allowed, Allowed]), ("yes", &[Allowed, Denied])],
            )
        },
        Probe {
            victim: true,
            setup: "test -x look",
            ..probe(
                "procargs-has-two-gates",
                "does denying process-info* alone leave other processes' arguments readable?",
                &["/bin/sh", "-c", "./look procargs $(cat victim)"],
                &[
                    &["(allow default)", "(deny process-info*)"],
                    &["(allow default)", "(deny process-info*)", "(deny sysctl-read)"],
                ],
                &[("yes", &[Allowed, Denied]), ("no", &[Denied, Denied])],
            )
        },
        probe(
            "set-uid",
            "are set-uid programs refused unless a rule runs them without a sandbox?",
            &["/bin/ps"],
            &[
                &["(allow default)"],
                &[
                    "(allow default)",
                    "(allow process-exec (with no-sandbox) (literal \"/bin/ps\"))",
                ],
            ],
            &[("yes", &[Denied, Allowed]), ("no", &[Allowed, Allowed])],
        ),
        probe(
            "nesting",
            "is a sandbox inside another possible only where both have the same profile?",
            &[
                "/usr/bin/sandbox-exec",
                "-p",
                "(version 1)\n(allow default)\n",
                "/usr/bin/true",
            ],
            &[
                &["(allow default)"],
                &[
                    "(allow default)",
                    "(deny file-write-data (literal \"{work}/file\"))",
                ],
            ],
            &[
                ("yes", &[Allowed, Refused]),
                ("never", &[Refused, Refused]),
                ("always", &[Allowed, Allowed]),
            ],
        ),
    ]
}

/// Which addresses a rule can name.
fn addresses() -> Vec<Probe> {
    let named = |id, question, address: &str| {
        let rule = |address: &str| format!("(deny network-outbound (remote ip \"{address}\"))");
        probe(
            id,
            question,
            TRUE,
            &[
                &["(allow default)", &rule("localhost:9")],
                &["(allow default)", &rule("localhost:9"), &rule(address)],
            ],
            &[("no", &[Allowed, Refused]), ("yes", &[Allowed, Allowed])],
        )
    };
    vec![
        Probe {
            believed: Believed::Switch(|semantics| match semantics.local_is_a_host {
                true => "yes",
                false => "no",
            }),
            ..named("P6", "is `local` a host in an address?", "local:9")
        },
        named(
            "number-as-host",
            "is `127.0.0.1` a host in an address?",
            "127.0.0.1:9",
        ),
    ]
}

/// How paths are compared.
fn paths() -> Vec<Probe> {
    let folded = |id, question, rule: &str| Probe {
        believed: Believed::Switch(|semantics| match semantics.fold_case {
            true => "yes",
            false => "no",
        }),
        ..probe(
            id,
            question,
            WRITE,
            &[&["(allow default)"], &["(allow default)", rule]],
            &[("yes", &[Allowed, Denied]), ("no", &[Allowed, Allowed])],
        )
    };
    vec![
        Probe {
            decides: Some(("file-write-data", "{work}/file")),
            ..folded(
                "P7",
                "are paths compared without regard to case, on the volume of temporary files?",
                "(deny file-write-data (literal \"{work}/FILE\"))",
            )
        },
        Probe {
            act: vec!["/bin/sh", "-c", "echo y > work/\u{e9}"],
            setup: "echo x > work/\u{e9}",
            decides: Some(("file-write-data", "{work}/\u{e9}")),
            ..folded(
                "P7-unicode",
                "are paths compared without regard to how a letter is composed?",
                "(deny file-write-data (literal \"{work}/e\u{301}\"))",
            )
        },
        Probe {
            act: vec!["/bin/sh", "-c", "echo y > work/mnt/file"],
            setup: "mkdir work/mnt && \
                { test -f image.dmg || hdiutil create -quiet -size 16m -fs 'Case-sensitive APFS' -volname eph image.dmg; } && \
                hdiutil attach -quiet -nobrowse -mountpoint work/mnt image.dmg && echo x > work/mnt/file",
            cleanup: "if test -f work/mnt/file; then hdiutil detach -quiet -force work/mnt; fi",
            believed: Believed::Always("no"),
            ..folded(
                "P7-case-sensitive-volume",
                "are paths compared without regard to case, on a case-sensitive volume?",
                "(deny file-write-data (literal \"{work}/mnt/FILE\"))",
            )
        },
        Probe {
            setup: "ln -s . work/link",
            decides: Some(("file-write-data", "{work}/file")),
            ..probe(
                "path-of-a-link",
                "does a rule for a symbolic link's path match what the link leads to?",
                &["/bin/sh", "-c", "echo y > work/link/file"],
                &[
                    &["(allow default)"],
                    &[
                        "(allow default)",
                        "(deny file-write-data (literal \"{work}/link/file\"))",
                    ],
                ],
                &[("no", &[Allowed, Allowed]), ("yes", &[Allowed, Denied])],
            )
        },
        Probe {
            setup: "mkdir -p work/above/secret && echo x > work/above/secret/file",
            ..probe(
                "rename-of-a-parent",
                "does moving a folder above it get around a rule for a path?",
                &[
                    "/bin/sh",
                    "-c",
                    "mv work/above work/moved && echo y > work/moved/secret/file",
                ],
                &[
                    &[
                        "(allow default)",
                        "(deny file-write* (subpath \"{work}/above/secret\"))",
                    ],
                    &[
                        "(allow default)",
                        "(deny file-write* (subpath \"{work}/above/secret\"))",
                        "(deny file-write-unlink (literal \"{work}/above\"))",
                    ],
                ],
                &[("yes", &[Allowed, Denied]), ("no", &[Denied, Denied])],
            )
        },
    ]
}

/// Where a rule's message is seen.
fn messages() -> Vec<Probe> {
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
fn limits() -> Vec<Probe> {
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
