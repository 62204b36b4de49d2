//! Mistakes of an earlier implementation of this idea, each with the symptom that its users saw.

use ephemerd::profile::policy::Network;

use crate::subject::{POSTURES, mac, path, rendered};

const WORKSPACE: &str = "/private/var/lib/ephemerd/native/aaaaaaaaaaa";

/// Symptom: .NET, and with it the GitHub runner, ends with exit code 133 (SIGTRAP).
#[test]
fn metadata_is_readable_on_every_folder_above_a_jobs_own() {
    for posture in POSTURES {
        let subject = rendered(posture, |_| ());
        for place in [
            WORKSPACE,
            "/private/var/folders/zz/one/T",
            "/opt/eph/1",
            "/Applications/Xcode.app/Contents",
        ] {
            for folder in camino::Utf8Path::new(place).ancestors() {
                let target = if folder == "/" {
                    "/".to_owned()
                } else {
                    format!("{folder}/")
                };
                assert!(
                    subject.allows("file-read-metadata", &target),
                    "{posture} {folder}"
                );
                assert!(
                    subject.allows("file-test-existence", &target),
                    "{posture} {folder}"
                );
            }
        }
    }
}

/// Symptom: `shell-init: error retrieving current directory: getcwd: cannot access parent directories`.
#[test]
fn the_folders_above_the_working_folder_can_be_listed_up_to_the_workspace() {
    for posture in POSTURES {
        let subject = rendered(posture, |_| ());
        for folder in ["/work/repo/", "/work/", "/"] {
            assert!(
                subject.allows("file-read-data", &format!("{WORKSPACE}{folder}")),
                "{posture} {folder}"
            );
        }
        // Above it, looking has to do: the mode of those folders lets no job list them, with or without a sandbox.
        let native = "/private/var/lib/ephemerd/native/";
        assert!(subject.allows("file-read-metadata", native) && !subject.allows("file-read-data", native));
    }
}

/// Symptom: what was allowed again for the workspace stayed denied, as the deny named an operation and the allow
/// its family.
#[test]
fn no_deny_of_one_operation_closes_the_workspace() {
    let operations = [
        "file-read-data",
        "file-read-metadata",
        "file-read-xattr",
        "file-write-acl",
        "file-write-create",
        "file-write-data",
        "file-write-finderinfo",
        "file-write-flags",
        "file-write-mode",
        "file-write-owner",
        "file-write-times",
        "file-write-unlink",
        "file-write-xattr",
        "file-link",
        "file-clone",
        "file-ioctl",
        "file-map-executable",
        "file-test-existence",
        "file-lock",
        "process-exec*",
        "process-exec-interpreter",
    ];
    for posture in POSTURES {
        // Daemon state in a place that is closed otherwise.
        for data_dir in [
            "/private/var/lib/ephemerd",
            "/private/var/db/ephemerd",
            "/Library/ephemerd",
            "/Users/Shared/e",
        ] {
            let subject = rendered(posture, |input| {
                input.data_dir = path(data_dir);
                input.workspace = path(data_dir).join("native/aaaaaaaaaaa");
            });
            let file = format!("{data_dir}/native/aaaaaaaaaaa/work/file");
            for operation in operations {
                assert!(
                    subject.allows(operation, &file),
                    "{posture} {data_dir} {operation}"
                );
            }
            let sibling = format!("{data_dir}/native/bbbbbbbbbbb/work/file");
            assert!(!subject.allows_any(&operations, &sibling), "{posture} {data_dir}");
        }
    }
}

/// Symptom: rules about `/etc`, `/tmp` and `/var` matched nothing, because the kernel compares what they lead to.
#[test]
fn no_rule_is_about_a_path_that_leads_elsewhere() {
    for posture in POSTURES {
        let subject = rendered(posture, |input| {
            input.data_dir = path("/var/lib/ephemerd");
            input.workspace = path("/var/lib/ephemerd/native/aaaaaaaaaaa");
            input.daemon_files = vec![path("/etc/ephemerd/ephemerd.toml")];
            input.extra_read = vec![path("/tmp/shared")];
            mac(input).user_folder = path("/var/folders/zz/one");
        });
        for link in ["\"/etc/", "\"/tmp/", "\"/var/"] {
            assert!(!subject.text.contains(link), "{posture} {link}");
        }
        assert!(subject.allows("file-write-data", &format!("{WORKSPACE}/work/file")));
        assert!(!subject.allows("file-read-data", "/private/etc/ephemerd/ephemerd.toml"));
        assert!(!subject.allows("file-read-data", "/etc/ephemerd/ephemerd.toml"));
        assert!(subject.allows("file-read-data", "/private/tmp/shared/file"));
        // The link itself is looked at before what it leads to.
        assert!(
            subject.allows("file-read-metadata", "/etc") && subject.allows("file-read-data", "/etc/hosts")
        );
    }
}

/// Symptom: clang and xcrun fail, or every account's temporary files are open to every job.
#[test]
fn of_the_folders_for_temporary_files_the_accounts_own_is_writable_and_no_other() {
    for posture in POSTURES {
        let subject = rendered(posture, |_| ());
        let writes = ["file-write-create", "file-write-data", "file-write-unlink"];
        assert!(subject.allows_all(&writes, "/private/var/folders/zz/one/T/xcrun_db"));
        assert!(subject.allows_all(&writes, "/private/var/folders/zz/one/C/mds/mdsObject.db"));
        for other in [
            "/private/var/folders/zz/two/T/x",
            "/private/var/folders/zz/one/C/x",
            "/private/var/folders/aa/x",
        ] {
            assert!(!subject.allows_any(&writes, other), "{posture} {other}");
            assert!(
                !subject.allows_any(&["file-read-data", "file-read-metadata"], other),
                "{posture} {other}"
            );
        }
    }
}

/// Symptom: databases, development servers, gRPC and Gradle's daemon cannot start.
#[test]
fn servers_can_be_started_and_reached_on_the_machine_itself() {
    for posture in POSTURES {
        for network in [Network::None, Network::Host] {
            let subject = rendered(posture, |input| input.network = network);
            for address in ["tcp:127.0.0.1:5432", "tcp:[::1]:5432", "udp:127.0.0.1:5432"] {
                for operation in ["network-bind", "network-inbound", "network-outbound"] {
                    assert!(
                        subject.allows(operation, address),
                        "{posture} {operation} {address}"
                    );
                }
            }
            let socket = format!("{WORKSPACE}/tmp/.s.PGSQL.5432");
            assert!(subject.allows_all(&["network-bind", "network-outbound"], &socket));
        }
    }
}

/// Symptom: denies were made of `$HOME`, which a daemon that runs as root does not have, and people's files were
/// open.
#[test]
fn homes_are_closed_without_anybody_telling_where_they_are() {
    for posture in POSTURES {
        let subject = rendered(posture, |_| ());
        let all = [
            "file-read-data",
            "file-read-metadata",
            "file-read-xattr",
            "file-write-create",
            "file-write-data",
        ];
        for home in ["/Users/anybody", "/Users/x.y", "/private/var/root"] {
            for file in [
                "Documents/plan",
                ".zsh_history",
                ".aws/credentials",
                ".config/gh/hosts.yml",
            ] {
                assert!(
                    !subject.allows_any(&all, &format!("{home}/{file}")),
                    "{posture} {home} {file}"
                );
            }
        }
    }
}

/// Symptom: a job could put a key of its own into `~/.ssh/authorized_keys` and log in later.
#[test]
fn keys_cannot_be_planted_even_where_a_home_is_granted() {
    let writes = [
        "file-write-create",
        "file-write-data",
        "file-write-unlink",
        "file-link",
    ];
    for posture in POSTURES {
        let subject = rendered(posture, |input| input.extra_write = vec![path("/Users/builder")]);
        assert!(
            subject.allows_all(&writes, "/Users/builder/cache/x"),
            "{posture}: what was granted"
        );
        for file in [
            ".ssh/authorized_keys",
            ".ssh",
            ".SSH/authorized_keys",
            "Library/Keychains/x",
            ".netrc",
        ] {
            assert!(
                !subject.allows_any(&writes, &format!("/Users/builder/{file}")),
                "{posture} {file}"
            );
        }
        // Nor can the folder above be moved away, changed and moved back.
        assert!(!subject.allows("file-write-unlink", "/Users/builder/Library/"));
        assert!(
            subject.allows_all(&writes, &format!("{WORKSPACE}/home/.ssh/known_hosts")),
            "the job's own"
        );
    }
}
