//! What operations without a parent are by themselves.

use super::super::Outcome::{Allowed, Denied};
use super::super::{Believed, Probe, Trial, by_itself};
use super::{FAMILIES, TRUE, probe};

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

/// The questions.
pub(super) fn all() -> Vec<Probe> {
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
