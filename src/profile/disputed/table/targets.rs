//! What rules can name, and how that is compared: processes, addresses and paths.

use super::super::Outcome::{Allowed, Denied, Refused};
use super::super::{Believed, Probe};
use super::{TRUE, WRITE, probe};

/// What a job sees of other processes.
pub(super) fn processes() -> Vec<Probe> {
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
pub(super) fn addresses() -> Vec<Probe> {
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
pub(super) fn paths() -> Vec<Probe> {
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
