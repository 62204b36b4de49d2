//! Attacks on accounts, files and credentials.

use libc::{EACCES, EBUSY, EPERM, EROFS, EXDEV};

use super::super::Stop::Errno;
use super::{CALLER, HIDDEN, NO_NODE, NOT_ROOT, REFUSED, Row, UNTOUCHABLE, attack};

pub(super) const ACCOUNTS: &[Row] = &[
    attack(
        "run-as-root",
        REFUSED,
        "Runs with a real, effective or saved user id of root.",
    )
    .root(),
    attack("extra-groups", REFUSED, "Is a member of groups besides its own.").no_control(CALLER),
    attack(
        "hold-capabilities",
        REFUSED,
        "Holds a capability in any of its five sets.",
    )
    .root(),
    attack(
        "gain-new-privileges",
        REFUSED,
        "Runs without no_new_privs, so that an exec could add privileges.",
    ),
    attack(
        "gain-root-by-setuid",
        UNTOUCHABLE,
        "Executes a setuid-root program and looks at its effective user.",
    )
    .root(),
    attack("become-root", NOT_ROOT, "Asks for user id 0 with setresuid.").root(),
];

pub(super) const FILESYSTEM: &[Row] = &[
    attack(
        "read-sibling-file",
        HIDDEN,
        "Reads a world-readable file of a sibling.",
    ),
    attack("list-sibling-folder", HIDDEN, "Lists the folder of a sibling."),
    attack(
        "find-siblings",
        HIDDEN,
        "Lists the folder of all workspaces and looks for a sibling.",
    ),
    attack(
        "stat-sibling-file",
        HIDDEN,
        "Guesses the path of a sibling's file and asks for its status.",
    ),
    attack(
        "write-sibling-file",
        HIDDEN,
        "Appends to a world-writable file of a sibling.",
    ),
    attack(
        "truncate-sibling-file",
        HIDDEN,
        "Changes the length of a sibling's file without opening it.",
    ),
    attack(
        "chmod-sibling-file",
        HIDDEN,
        "Changes the mode of a sibling's file.",
    ),
    attack(
        "plant-file-in-sibling",
        HIDDEN,
        "Creates a file in a world-writable folder of a sibling.",
    ),
    attack(
        "plant-symlink-in-sibling",
        HIDDEN,
        "Creates a symbolic link in a folder of a sibling.",
    ),
    attack("rename-sibling-file", HIDDEN, "Renames a file of a sibling."),
    attack(
        "hardlink-sibling-file",
        HIDDEN,
        "Makes a hard link to a sibling's file in its own workspace.",
    ),
    attack(
        "follow-symlink-to-sibling",
        HIDDEN,
        "Reads a sibling's file through a symbolic link of its own.",
    ),
    attack(
        "follow-proc-root-to-sibling",
        HIDDEN,
        "Reads a sibling's file through /proc/self/root.",
    ),
    attack(
        "rename-own-workspace",
        &[
            Errno(EACCES),
            Errno(EPERM),
            Errno(EROFS),
            Errno(EBUSY),
            Errno(EXDEV),
        ],
        "Renames the folder its workspace is, so that rules on its path would no longer match.",
    ),
    attack(
        "rename-workspaces-folder",
        &[
            Errno(EACCES),
            Errno(EPERM),
            Errno(EROFS),
            Errno(EBUSY),
            Errno(EXDEV),
        ],
        "Renames the folder that holds all workspaces.",
    ),
    attack(
        "read-host-tmp",
        HIDDEN,
        "Reads a world-readable file of a sibling in /tmp.",
    ),
    attack(
        "write-host-tmp",
        HIDDEN,
        "Appends to a world-writable file of a sibling in /tmp.",
    ),
    attack(
        "read-host-var-tmp",
        HIDDEN,
        "Reads a world-readable file of a sibling in /var/tmp.",
    ),
    attack(
        "write-tool-folders",
        UNTOUCHABLE,
        "Creates a nameless file in a folder of the host's tools.",
    )
    .root(),
    attack(
        "write-spool-folders",
        UNTOUCHABLE,
        "Creates a nameless file where cron, at or systemd would run it.",
    )
    .root(),
    attack(
        "write-core-pattern",
        UNTOUCHABLE,
        "Opens /proc/sys/kernel/core_pattern for writing.",
    )
    .root(),
    attack(
        "write-sysrq-trigger",
        UNTOUCHABLE,
        "Opens /proc/sysrq-trigger for writing.",
    )
    .root(),
    attack(
        "open-host-devices",
        UNTOUCHABLE,
        "Opens /dev/mem, /dev/port, /dev/kmsg or the first disk.",
    )
    .root(),
    attack("read-kernel-memory", UNTOUCHABLE, "Opens /proc/kcore.").root(),
    attack(
        "read-kernel-addresses",
        UNTOUCHABLE,
        "Reads addresses of kernel symbols from /proc/kallsyms.",
    )
    .root(),
    attack(
        "make-device-node",
        NO_NODE,
        "Makes a device node in its own workspace.",
    )
    .root(),
    attack(
        "leave-cgroup",
        UNTOUCHABLE,
        "Opens the process list of the root cgroup for writing.",
    )
    .root(),
];

pub(super) const CREDENTIALS: &[Row] = &[
    attack(
        "read-daemon-state",
        HIDDEN,
        "Reads configuration, ledger, logs or keys of the daemon.",
    ),
    attack(
        "write-daemon-state",
        UNTOUCHABLE,
        "Opens configuration, ledger, logs or keys for writing.",
    ),
    attack(
        "read-host-secrets",
        HIDDEN,
        "Reads /etc/shadow or the host's SSH keys.",
    )
    .root(),
    attack("list-host-homes", HIDDEN, "Lists /root and /home.").root(),
];
