//! Which protections this host can enforce, worked out from what was found on it.
//!
//! [`HostProbe`] is what was found, as a value; [`assess`] decides, so that a host without a feature is a
//! test case and not a machine.

mod mac;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Axis;
use crate::config::{Accounts, Config, EgressMode, Groups};
use crate::host::Os;

/// The Landlock ABI the sandbox needs: 6 (Linux 6.12), the first with scopes for signals and abstract Unix
/// sockets (landlock(7)).
pub const LANDLOCK_ABI: i32 = 6;

/// What was found on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProbe {
    /// Its operating system.
    pub os: Os,
    /// Whether this process is root.
    pub root: bool,
    /// The Landlock ABI, or why there is none.
    pub landlock_abi: Result<i32, String>,
    /// Kinds of namespaces the kernel does not have, by their names in `/proc/self/ns`.
    pub missing_namespaces: Vec<String>,
    /// Whether the kernel has seccomp filters.
    pub seccomp: bool,
    /// Why sandbox-exec(1) of macOS cannot apply a profile, where it cannot.
    pub seatbelt: Result<(), String>,
    /// Why an ordinary user cannot make a user namespace, where that is known.
    pub user_namespaces: Result<(), String>,
    /// Why the slots' accounts cannot be used, where they cannot.
    pub accounts: Result<(), String>,
    /// Why the system's packet filter cannot be used, where it cannot.
    pub packet_filter: Result<(), String>,
    /// Open files a process of this host may have at most.
    pub open_files_hard: u64,
    /// Whether jobs can have control groups here.
    pub groups: Result<(), String>,
}

/// How well an axis is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// By the kernel, and verified for every job.
    Enforced,
    /// In part; the report says what is missing.
    Degraded,
    /// Not at all.
    Absent,
}

/// One axis on this host, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxisReport {
    /// The axis.
    pub axis: Axis,
    /// How well it is protected.
    pub standing: Standing,
    /// By what, or why not.
    pub why: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Assesses every axis, in the order of [`Axis::ALL`].
pub fn assess(probe: &HostProbe, config: &Config) -> Vec<AxisReport> {
    if probe.os == Os::MacOs {
        return mac::assess(probe, config);
    }
    Axis::ALL
        .map(|axis| match axis {
            Axis::Accounts => accounts(probe, config),
            Axis::Filesystem => filesystem(probe),
            Axis::Processes => namespaces(
                probe,
                axis,
                &["pid"],
                "a pid namespace, no ptrace, Landlock's signal scope",
            ),
            Axis::Ipc => namespaces(
                probe,
                axis,
                &["ipc"],
                "an ipc namespace, own /dev/shm, Landlock's socket scope",
            ),
            Axis::Network => network(probe, config),
            Axis::Limits => limits(probe, config),
            Axis::Credentials => enforced(
                axis,
                "a minimal environment, no inherited descriptors, daemon files hidden",
            ),
        })
        .into()
}

/// The first reason not to run native jobs here: an axis that is not enforced, that `allow_degraded` does not
/// name, and that no other key of the configuration weakens on purpose.
pub fn refusal(reports: &[AxisReport], config: &Config) -> Option<String> {
    let on_purpose = |axis| axis == Axis::Network && config.egress.mode == EgressMode::Open;
    let allowed: &BTreeSet<Axis> = &config.native.allow_degraded;
    let missing = reports.iter().find(|report| {
        report.standing != Standing::Enforced && !allowed.contains(&report.axis) && !on_purpose(report.axis)
    })?;
    let hint = missing
        .hint
        .as_ref()
        .map(|hint| format!("\nhint: {hint}"))
        .unwrap_or_default();
    let standing = match missing.standing {
        Standing::Degraded => "degraded",
        Standing::Absent | Standing::Enforced => "absent",
    };
    Some(format!(
        "axis `{}` is {standing}: {}{hint}",
        missing.axis, missing.why
    ))
}

fn report(axis: Axis, standing: Standing, why: impl Into<String>, hint: &str) -> AxisReport {
    AxisReport {
        axis,
        standing,
        why: why.into(),
        hint: Some(hint.to_owned()),
    }
}

fn enforced(axis: Axis, why: &str) -> AxisReport {
    AxisReport {
        axis,
        standing: Standing::Enforced,
        why: why.to_owned(),
        hint: None,
    }
}

fn accounts(probe: &HostProbe, config: &Config) -> AxisReport {
    let axis = Axis::Accounts;
    if !probe.root {
        let hint = "run as root, or name `accounts` in native.allow_degraded to run jobs as yourself";
        return report(
            axis,
            Standing::Absent,
            "not started as root, so jobs run as the caller",
            hint,
        );
    }
    if let Err(why) = &probe.accounts {
        return report(axis, Standing::Absent, why.clone(), "run `ephemerd host setup`");
    }
    match config.native.accounts {
        Accounts::PerSlot => enforced(axis, "an account per slot"),
        Accounts::Single => {
            let why = "accounts = \"single\": jobs share one uid, and what is left cannot be killed by uid";
            report(
                axis,
                Standing::Degraded,
                why,
                "set native.accounts = \"per-slot\"",
            )
        }
    }
}

fn filesystem(probe: &HostProbe) -> AxisReport {
    let axis = Axis::Filesystem;
    let hint = "boot Linux 6.12 or later with `landlock` in the kernel parameter `lsm=`";
    match &probe.landlock_abi {
        Ok(abi) if *abi >= LANDLOCK_ABI => {}
        Ok(abi) => {
            let why = format!("the kernel has Landlock ABI {abi}, {LANDLOCK_ABI} is needed");
            return report(axis, Standing::Absent, why, hint);
        }
        Err(why) => {
            return report(
                axis,
                Standing::Absent,
                format!("the kernel has no Landlock: {why}"),
                hint,
            );
        }
    }
    if !probe.seccomp {
        let hint = "boot a kernel with CONFIG_SECCOMP_FILTER";
        return report(axis, Standing::Absent, "the kernel has no seccomp filters", hint);
    }
    namespaces(
        probe,
        axis,
        &["mnt", "uts"],
        "a root of its own from the profile, and the same rules in Landlock",
    )
}

fn namespaces(probe: &HostProbe, axis: Axis, needed: &[&str], why: &str) -> AxisReport {
    let missing: Vec<&str> = needed
        .iter()
        .copied()
        .filter(|kind| probe.missing_namespaces.iter().any(|m| m == kind))
        .collect();
    if !missing.is_empty() {
        let why = format!("the kernel has no {} namespaces", missing.join(" and "));
        return report(
            axis,
            Standing::Absent,
            why,
            "boot a kernel with CONFIG_NAMESPACES and its kinds",
        );
    }
    match (&probe.user_namespaces, probe.root) {
        (Err(why), false) => report(
            axis,
            Standing::Absent,
            why.clone(),
            "run as root, or allow user namespaces",
        ),
        _ => enforced(axis, why),
    }
}

fn network(probe: &HostProbe, config: &Config) -> AxisReport {
    match config.egress.mode {
        EgressMode::Offline => namespaces(
            probe,
            Axis::Network,
            &["net"],
            "a network namespace with nothing but loopback",
        ),
        EgressMode::BlockLan => filtered(probe),
        EgressMode::Open => {
            let why = "egress.mode = \"open\": jobs reach whatever the host reaches, the LAN included";
            report(
                Axis::Network,
                Standing::Degraded,
                why,
                "set egress.mode = \"offline\"",
            )
        }
    }
}

/// The network axis where a packet filter goes by account.
fn filtered(probe: &HostProbe) -> AxisReport {
    let axis = Axis::Network;
    let offline = "or set egress.mode = \"offline\"";
    if !probe.root {
        let why =
            "not started as root, so no packet filter can be loaded and no job has an account to filter by";
        return report(axis, Standing::Absent, why, &format!("run as root, {offline}"));
    }
    match &probe.packet_filter {
        Ok(()) => {
            let by = match probe.os {
                Os::Linux => "nftables",
                Os::MacOs => "pf",
            };
            let why = format!("{by} rules for the slots' accounts, verified before and during every job");
            enforced(axis, &why)
        }
        Err(why) => {
            let remedy = match probe.os {
                Os::Linux => "install nftables and iproute2",
                Os::MacOs => "`ephemerd egress status` tells more",
            };
            report(
                axis,
                Standing::Absent,
                why.clone(),
                &format!("{remedy}, {offline}"),
            )
        }
    }
}

fn limits(probe: &HostProbe, config: &Config) -> AxisReport {
    let axis = Axis::Limits;
    if !probe.root {
        let why =
            "without an account of its own a job shares the process limit, and its memory is not measured";
        return report(
            axis,
            Standing::Degraded,
            why,
            "run as root, or name `limits` in native.allow_degraded",
        );
    }
    if config.native.accounts == Accounts::Single {
        let why = "accounts = \"single\": jobs share the process limit, and their memory is not measured";
        return report(
            axis,
            Standing::Degraded,
            why,
            "set native.accounts = \"per-slot\"",
        );
    }
    let wanted = config.native.limits.cgroup;
    let why = match (wanted, &probe.groups) {
        (Groups::Required, Err(why)) => {
            return report(
                axis,
                Standing::Degraded,
                format!("native.limits.cgroup is \"required\", and {}", why.lines().next().unwrap_or(why)),
                "run ephemerd as a service with `Delegate=yes`, or set native.limits.cgroup = \"auto\"",
            );
        }
        (Groups::Auto | Groups::Required, Ok(())) => {
            "rlimits; memory, processes and shares of the processors by control group; disk measured as it runs".to_owned()
        }
        (Groups::Auto, Err(why)) if probe.os == Os::Linux => format!(
            "rlimits; memory and disk measured as it runs: {}",
            why.lines().next().unwrap_or(why)
        ),
        (Groups::Off | Groups::Auto, _) => "rlimits; memory and disk measured as it runs".to_owned(),
    };
    match probe.open_files_hard {
        fewer if fewer < config.native.limits.open_files => {
            enforced(axis, &format!("{why}; open files {fewer}, the hard limit here"))
        }
        _ => enforced(axis, &why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capable() -> HostProbe {
        HostProbe {
            os: Os::Linux,
            root: true,
            landlock_abi: Ok(LANDLOCK_ABI),
            missing_namespaces: vec![],
            seatbelt: Ok(()),
            seccomp: true,
            user_namespaces: Ok(()),
            accounts: Ok(()),
            packet_filter: Ok(()),
            open_files_hard: 1 << 20,
            groups: Ok(()),
        }
    }

    fn config(text: &str) -> Config {
        crate::config::parse(text, "test.toml").unwrap().config
    }

    fn refused(probe: HostProbe, text: &str) -> Option<String> {
        let config = config(text);
        refusal(&assess(&probe, &config), &config)
    }

    #[test]
    fn a_capable_host_enforces_every_axis_of_the_default_configuration() {
        let reports = assess(&capable(), &config(""));
        assert_eq!(
            reports.iter().map(|report| report.axis).collect::<Vec<_>>(),
            Axis::ALL
        );
        assert!(
            reports.iter().all(|report| report.standing == Standing::Enforced),
            "{reports:?}"
        );
    }

    #[test]
    fn refuses_a_kernel_without_landlock_and_names_the_remedy() {
        let why = refused(
            HostProbe {
                landlock_abi: Err("not built in".into()),
                ..capable()
            },
            "",
        )
        .unwrap();
        assert!(
            why.starts_with("axis `filesystem` is absent: the kernel has no Landlock"),
            "{why}"
        );
        assert!(why.contains("\nhint: boot Linux 6.12"), "{why}");
        assert!(
            refused(
                HostProbe {
                    landlock_abi: Ok(5),
                    ..capable()
                },
                ""
            )
            .unwrap()
            .contains("ABI 5")
        );
    }

    #[test]
    fn refuses_a_kernel_without_a_kind_of_namespace_it_needs() {
        let open = "[egress]\nmode = \"open\"";
        let offline = "[egress]\nmode = \"offline\"";
        for (kind, axis) in [
            ("mnt", "filesystem"),
            ("pid", "processes"),
            ("ipc", "ipc"),
            ("net", "network"),
        ] {
            let why = refused(
                HostProbe {
                    missing_namespaces: vec![kind.into()],
                    ..capable()
                },
                offline,
            )
            .unwrap();
            assert!(why.starts_with(&format!("axis `{axis}` is absent")), "{why}");
        }
        assert_eq!(
            refused(
                HostProbe {
                    missing_namespaces: vec!["net".into()],
                    ..capable()
                },
                open
            ),
            None
        );
    }

    #[test]
    fn refuses_missing_accounts_and_points_to_host_setup() {
        let why = refused(
            HostProbe {
                accounts: Err("account `_ephemerd1` is missing".into()),
                ..capable()
            },
            "",
        )
        .unwrap();
        assert!(why.contains("_ephemerd1") && why.contains("host setup"), "{why}");
    }

    #[test]
    fn runs_without_root_only_when_the_missing_axes_are_named() {
        let probe = || HostProbe {
            root: false,
            ..capable()
        };
        let offline = "[egress]\nmode = \"offline\"\n";
        let degraded =
            |axes: &str| refused(probe(), &format!("{offline}[native]\nallow_degraded = [{axes}]"));
        assert!(refused(probe(), offline).unwrap().contains("`accounts`"));
        assert!(degraded("\"accounts\"").unwrap().contains("`limits`"));
        assert_eq!(degraded("\"accounts\", \"limits\""), None);
    }

    #[test]
    fn without_root_or_its_tools_there_is_no_packet_filter_and_no_job() {
        let without_root = HostProbe {
            root: false,
            ..capable()
        };
        let native = "[native]\nallow_degraded = [\"accounts\", \"limits\"]";
        let why = refused(without_root, native).unwrap();
        assert!(
            why.starts_with("axis `network` is absent: not started as root"),
            "{why}"
        );
        assert!(why.contains("egress.mode = \"offline\""), "{why}");
        let without_nft = HostProbe {
            packet_filter: Err("`/usr/sbin/nft` is not there".into()),
            ..capable()
        };
        let why = refused(without_nft, "").unwrap();
        assert!(
            why.contains("/usr/sbin/nft") && why.contains("install nftables"),
            "{why}"
        );
    }

    #[test]
    fn open_egress_is_reported_as_degraded() {
        let reports = assess(&capable(), &config("[egress]\nmode = \"open\""));
        let network = reports
            .iter()
            .find(|report| report.axis == Axis::Network)
            .unwrap();
        assert_eq!(network.standing, Standing::Degraded);
    }
}
