//! Attacks on processes, IPC, network and limits.

use libc::{EACCES, EAGAIN, ECONNREFUSED, ENETUNREACH, ENOENT, ENXIO, EPERM};

use super::super::Stop::{self, Errno};
use super::{CALLER, HIDDEN, NO_NAME, NO_PROCESS, REFUSED, Row, UNTOUCHABLE, attack};

pub(super) const PROCESSES: &[Row] = &[
    attack(
        "find-foreign-processes",
        NO_NAME,
        "Looks in /proc for processes of siblings, daemon and host.",
    ),
    attack(
        "read-foreign-environ",
        NO_NAME,
        "Reads the environment of a sibling's or the daemon's process.",
    ),
    attack(
        "read-foreign-cmdline",
        NO_NAME,
        "Reads the arguments of a sibling's or the daemon's process.",
    ),
    attack(
        "enter-foreign-root",
        NO_NAME,
        "Opens /proc/PID/root of a sibling's or the daemon's process.",
    ),
    attack(
        "enter-foreign-cwd",
        NO_NAME,
        "Opens /proc/PID/cwd of a sibling's or the daemon's process.",
    ),
    attack(
        "list-foreign-descriptors",
        NO_NAME,
        "Lists the open files of a sibling's or the daemon's process.",
    ),
    attack(
        "open-foreign-memory",
        NO_NAME,
        "Opens /proc/PID/mem of a sibling's or the daemon's process.",
    )
    .root(),
    attack(
        "signal-foreign-process",
        NO_PROCESS,
        "Signals a sibling's or the daemon's process (signal 0).",
    ),
    attack(
        "open-foreign-pidfd",
        NO_PROCESS,
        "Opens a pidfd of a sibling's or the daemon's process.",
    ),
    attack(
        "renice-foreign-process",
        NO_PROCESS,
        "Reads the priority of a sibling's or the daemon's process.",
    ),
    attack(
        "signal-everyone",
        NO_PROCESS,
        "Sends a signal that is ignored by default to every process it can.",
    )
    .no_control("it would reach every process of the host"),
    attack(
        "survive-the-job",
        NO_PROCESS,
        "Leaves a process behind in a session of its own.",
    ),
    attack(
        "inherited-descriptors",
        NO_NAME,
        "Finds descriptors besides 0, 1 and 2 open at its start.",
    )
    .no_control(CALLER),
    attack(
        "controlling-terminal",
        &[Errno(ENXIO), Errno(ENOENT), Errno(EACCES)],
        "Opens the terminal of whoever started the job.",
    )
    .no_control(CALLER),
    attack(
        "type-into-inherited-terminal",
        REFUSED,
        "Pushes input into a terminal among descriptors 0 to 2.",
    )
    .no_control(CALLER),
];

pub(super) const IPC: &[Row] = &[
    attack(
        "connect-sibling-socket",
        HIDDEN,
        "Connects to a Unix socket in a sibling's folder.",
    ),
    attack(
        "connect-sibling-abstract-socket",
        &[Errno(EPERM), Errno(ECONNREFUSED)],
        "Connects to an abstract Unix socket of a sibling.",
    ),
    attack(
        "connect-control-socket",
        HIDDEN,
        "Connects to the daemon's control socket.",
    ),
    attack(
        "connect-host-services",
        HIDDEN,
        "Connects to the host's container, D-Bus or systemd sockets.",
    )
    .no_control("the host may have none of them"),
    attack(
        "attach-sibling-shm",
        NO_NAME,
        "Finds a System V segment of a sibling by its key.",
    ),
    attack(
        "open-sibling-posix-shm",
        HIDDEN,
        "Opens a POSIX shared memory object of a sibling.",
    ),
    attack(
        "open-sibling-message-queue",
        HIDDEN,
        "Opens a POSIX message queue of a sibling.",
    ),
];

/// Refused at once by a network namespace of its own, with its loopback up or down.
const NOBODY_THERE: &[Stop] = &[Errno(ECONNREFUSED), Errno(ENETUNREACH)];

pub(super) const NETWORK: &[Row] = &[
    attack(
        "connect-host-loopback",
        NOBODY_THERE,
        "Connects to a service on the host's loopback.",
    ),
    attack(
        "connect-host-loopback-mapped",
        NOBODY_THERE,
        "The same through the IPv6 form of the address.",
    ),
    attack("raw-socket", REFUSED, "Opens a raw IP socket.").root(),
    attack("packet-socket", REFUSED, "Opens a packet socket.").root(),
    attack("vsock-socket", REFUSED, "Opens a socket to the hypervisor."),
    attack(
        "crypto-socket",
        REFUSED,
        "Opens a socket to the kernel's cryptography.",
    ),
    attack(
        "ping-socket",
        &[Errno(EACCES), Errno(EPERM)],
        "Opens an ICMP echo socket.",
    )
    .no_control("many hosts let nobody do so"),
    attack(
        "change-network",
        REFUSED,
        "Asks netlink for an address on an interface that does not exist.",
    )
    .root(),
    attack(
        "bind-privileged-port",
        &[Errno(EACCES)],
        "Binds a port below 1024 on loopback.",
    )
    .root(),
];

pub(super) const LIMITS: &[Row] = &[
    attack(
        "fork-bomb",
        &[Errno(EAGAIN)],
        "Forks until it is stopped or past its limit of processes.",
    )
    .root(),
    attack("raise-process-limit", REFUSED, "Removes its limit of processes.").root(),
    attack(
        "change-core-limit",
        REFUSED,
        "Allows itself core dumps, to files or to a program of the host's.",
    ),
    attack(
        "raise-priority",
        &[Errno(EACCES), Errno(EPERM)],
        "Gives itself a higher priority.",
    )
    .root(),
    attack("realtime-scheduling", REFUSED, "Asks for real-time scheduling.").root(),
    attack(
        "dodge-oom-killer",
        UNTOUCHABLE,
        "Exempts itself from the out-of-memory killer.",
    )
    .root(),
    attack(
        "open-umask",
        REFUSED,
        "Creates files that others may write, by the umask it was given.",
    )
    .no_control(CALLER),
];
