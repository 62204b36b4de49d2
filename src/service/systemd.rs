//! systemd: the unit, the rotation of the log, and the commands.

use std::time::Duration;

use camino::Utf8Path;

use super::{Settings, UNIT};
use crate::host::Host;
use crate::host::command::{CommandSpec, quoted};

/// How long a question may take.
const ASK: Duration = Duration::from_secs(20);

/// How long an end may take; `TimeoutStopSec` of the unit says how long it really may.
const STOP: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a start may take: `TimeoutStartSec` of the unit, and systemd's own time.
const START: Duration = Duration::from_secs(330);

/// The unit. Every line that could be missed says why it is there, and what is not there and why.
pub fn unit(settings: &Settings) -> String {
    let line = |words: &[String]| {
        words
            .iter()
            .map(|word| escaped(word))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let (command, reload) = (line(&settings.command()), line(&settings.reload()));
    let stop = settings.stop.as_secs();
    format!(
        "\
# Written by `ephemerd host install`, which replaces it when its own text changes, and refuses to when somebody else
# has changed it: put changes of yours into a drop-in (`systemctl edit {UNIT}`).

[Unit]
Description=ephemerd, which runs CI jobs on this host
# Jobs need the network, and the addresses that they are kept from.
Wants=network-online.target
After=network-online.target nftables.service
# The daemon waits five seconds between its starts, and goes on trying.
StartLimitIntervalSec=0

[Service]
# The daemon says when it takes jobs, and from then on that its loop turns; one that hangs is killed and started anew.
Type=notify
NotifyAccess=main
WatchdogSec=60
ExecStart={command}
# Ends when the new configuration is in force, and fails when it is wrong and the old one stays.
ExecReload={reload}
# What an earlier daemon has left is torn down first.
TimeoutStartSec=300

Restart=on-failure
RestartSec=5
# A wrong configuration does not become right by itself.
RestartPreventExitStatus=2

# The daemon is told to stop, and ends and scrubs its jobs itself; what is left after that time is killed.
KillMode=mixed
TimeoutStopSec={stop}

# Jobs live in the service's control group: how many processes they may have, `native.limits` says.
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
UMask=0077

# What the daemon, and with it every job, never needs. Not here, because jobs would not start or would see another host:
# NoNewPrivileges (the daemon becomes other accounts, and tools of guests use sudo), PrivateTmp, ProtectSystem, ProtectHome,
# ProtectProc, ProtectKernelTunables, ProtectControlGroups (jobs see what the host has; ephemerd itself shows each what it
# may), PrivateDevices, ProtectClock (they close devices, /dev/kvm of guests too), RestrictNamespaces,
# MemoryDenyWriteExecute (programs that compile while they run, GitHub's runner among them), RestrictSUIDSGID (jobs may set
# such bits on files of their own), PrivateNetwork, IPAddressDeny (rules go by account). What those of these that are about
# the kernel would take away, modules, its log, the clock, is not among the capabilities.
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
# To become accounts, pass by permissions of what jobs left, make namespaces, mounts and device nodes for jobs, load rules,
# set limits, listen to a webhook at a low port, and end what does not want to end.
CapabilityBoundingSet={CAPABILITIES}

[Install]
WantedBy=multi-user.target
"
    )
}

/// What the daemon and its warden need of root's rights.
const CAPABILITIES: &str = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_IPC_OWNER CAP_KILL \
     CAP_LINUX_IMMUTABLE CAP_MKNOD CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_ADMIN \
     CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_RESOURCE";

/// A word of a command line, as systemd.service(5) reads it: `%` and `$` mean something there.
fn escaped(word: &str) -> String {
    quoted(word).replace('%', "%%").replace('$', "$$")
}

/// The rotation of the log, for logrotate(8). The daemon notices by itself that its file has another name, so that
/// nothing is copied and no line is lost.
pub fn logrotate(log: &Utf8Path) -> String {
    format!(
        "\
# Written by `ephemerd host install`. The daemon opens its log anew when it is moved.
{log} {{
    daily
    maxsize 10M
    rotate 7
    missingok
    notifempty
    nocreate
    compress
    delaycompress
}}
"
    )
}

fn systemctl(host: &Host, args: &[&str], timeout: Duration) -> CommandSpec {
    CommandSpec::new(&host.tools.systemctl, args, timeout)
}

/// Reads units anew, enables this one and starts it; that ends when the daemon says that it is ready.
pub(super) fn start(host: &Host) -> Vec<CommandSpec> {
    vec![
        systemctl(host, &["daemon-reload"], ASK),
        systemctl(host, &["enable", "--now", UNIT], START),
    ]
}

pub(super) fn halt(host: &Host) -> Vec<CommandSpec> {
    vec![systemctl(host, &["stop", UNIT], STOP)]
}

pub(super) fn remove(host: &Host) -> Vec<CommandSpec> {
    vec![systemctl(host, &["disable", "--now", UNIT], STOP)]
}

pub(super) fn forget(host: &Host) -> Vec<CommandSpec> {
    vec![systemctl(host, &["daemon-reload"], ASK)]
}

pub(super) fn is_up(host: &Host) -> Vec<CommandSpec> {
    vec![
        systemctl(host, &["is-enabled", "--quiet", UNIT], ASK),
        systemctl(host, &["is-active", "--quiet", UNIT], ASK),
    ]
}
