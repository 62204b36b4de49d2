//! The postures of Linux.

use ephemerd::host::Os;
use ephemerd::provision::question::Answer;

use super::{Case, Told, UNCLEAR, Want, case, off, on, policy};
use crate::told::{complained, printed, text};

fn sleep(states: Answer, targets: Answer) -> Told {
    vec![
        ("read /sys/power/state", states),
        ("resolve /sys/kernel", Answer::At("/sys/kernel".into())),
        ("systemctl is-enabled", targets),
    ]
}

pub(super) fn settings() -> Vec<Case> {
    let linux = Os::Linux;
    let apt = |name| vec![("apt-config dump", printed(name, 0))];
    let time = |name| vec![("timedatectl show", printed(name, 0))];
    let states = || text("freeze mem disk\n");
    vec![
        case(
            ("sleep", linux, off()),
            sleep(states(), printed("systemctl-targets-masked", 1)),
            "ok: masked",
            &[],
        ),
        case(
            ("sleep", linux, off()),
            sleep(text("\n"), Answer::Missing),
            "ok: the kernel offers none",
            &[],
        ),
        case(
            ("sleep", linux, off()),
            sleep(Answer::Missing, Answer::Missing),
            "ok: the kernel offers none",
            &[],
        ),
        case(
            ("sleep", linux, off()),
            sleep(states(), printed("systemctl-targets-half", 0)),
            "wrong: found suspend.target, hybrid-sleep.target not masked, wanted off",
            &[
                "+ /usr/bin/systemctl mask suspend.target",
                "- /usr/bin/systemctl unmask suspend.target",
                "+ /usr/bin/systemctl mask hybrid-sleep.target",
                "- /usr/bin/systemctl unmask hybrid-sleep.target",
            ],
        ),
        case(
            ("sleep", linux, off()),
            sleep(states(), Answer::Missing),
            "unknown: systemctl: what tells it is not there",
            &[UNCLEAR],
        ),
        case(
            ("automatic_updates", linux, policy("install")),
            apt("apt-config-install"),
            "ok: install",
            &[],
        ),
        case(
            ("automatic_updates", linux, policy("download")),
            apt("apt-config-download"),
            "ok: download",
            &[],
        ),
        case(
            ("automatic_updates", linux, policy("off")),
            apt("apt-config-nothing"),
            "ok: off",
            &[],
        ),
        case(
            ("automatic_updates", linux, policy("check")),
            apt("apt-config-disabled"),
            "wrong: found off, wanted check",
            &[
                "+ write /etc/apt/apt.conf.d/99-ephemerd-updates, mode 644: \"APT::Periodic::Enable \\\"1\\\";\\nAPT::Periodic::Update-Package-Lists \\\"1\\\";\\nAPT::Periodic::Download-Upgradeable-Packages \\\"0\\\";\\nAPT::Periodic::Unattended-Upgrade \\\"0\\\";\\n\"",
            ],
        ),
        case(
            ("automatic_updates", linux, policy("off")),
            apt("garbage"),
            "unknown: apt-config: exit code 0: %PDF-1.7 \u{20} 503 Service Unavailable",
            &[UNCLEAR],
        ),
        case(
            ("time_sync", linux, on()),
            time("timedatectl-synchronized"),
            "ok: synchronized",
            &[],
        ),
        case(
            ("time_sync", linux, on()),
            time("timedatectl-chrony"),
            "ok: synchronized",
            &[],
        ),
        case(
            ("time_sync", linux, on()),
            time("timedatectl-off"),
            "wrong: found off, wanted on",
            &[
                "+ /usr/bin/timedatectl set-ntp true",
                "- /usr/bin/timedatectl set-ntp false",
            ],
        ),
        case(
            ("time_sync", linux, on()),
            time("timedatectl-waiting"),
            "wrong: found on, and not synchronized yet, wanted on",
            &["? see why it is not: timedatectl timesync-status"],
        ),
        case(
            ("time_sync", linux, on()),
            vec![("timedatectl", complained("systemctl-offline", 1))],
            "unknown: timedatectl: exit code 1: System has not been booted with systemd as init system (PID 1). Can't operate.",
            &[UNCLEAR],
        ),
        case(
            ("packet_filter", linux, on()),
            vec![("ability", text("nftables"))],
            "ok: nftables",
            &[],
        ),
        case(
            ("packet_filter", linux, on()),
            vec![("ability", Answer::Missing)],
            "wrong: found none, wanted on",
            &["? install nftables and iproute2"],
        ),
        case(
            ("packet_filter", linux, on()),
            vec![("ability", Answer::Failed("nft ended with 1".to_owned()))],
            "unknown: nft ended with 1",
            &[UNCLEAR],
        ),
        case(
            ("landlock", linux, Want::AtLeast(6)),
            vec![("ability", text("7"))],
            "ok: ABI 7",
            &[],
        ),
        case(
            ("landlock", linux, Want::AtLeast(6)),
            vec![("ability", text("5"))],
            "wrong: found ABI 5, wanted 6 or more",
            &["? boot Linux 6.12 or later with `landlock` in the kernel parameter `lsm=`"],
        ),
        case(
            ("landlock", linux, Want::AtLeast(6)),
            vec![("ability", Answer::Missing)],
            "wrong: found no Landlock, wanted 6 or more",
            &["? boot Linux 6.12 or later with `landlock` in the kernel parameter `lsm=`"],
        ),
        case(
            ("landlock", linux, Want::AtLeast(6)),
            vec![("ability", text("many"))],
            "unknown: `many` is no ABI",
            &[UNCLEAR],
        ),
        case(
            ("namespaces", linux, on()),
            vec![("ability", text("mnt, pid, net"))],
            "ok: mnt, pid, net",
            &[],
        ),
        case(
            ("namespaces", linux, on()),
            vec![("ability", Answer::Missing)],
            "wrong: found none, wanted on",
            &["? boot a kernel with CONFIG_NAMESPACES and its kinds, or allow user namespaces"],
        ),
        case(
            ("namespaces", linux, on()),
            vec![("ability", Answer::Denied)],
            "unknown: it may not be looked at; root may",
            &[UNCLEAR],
        ),
    ]
}
