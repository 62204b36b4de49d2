//! The axes on macOS: what Seatbelt, an account per slot and rlimits give, and what they do not.

use super::{Axis, AxisReport, HostProbe, Standing, accounts, enforced, limits, report};
use crate::config::{Accounts, Config, EgressMode};

/// Assesses every axis of a Mac, in the order of [`Axis::ALL`].
pub(super) fn assess(probe: &HostProbe, config: &Config) -> Vec<AxisReport> {
    Axis::ALL
        .map(|axis| match axis {
            Axis::Accounts => accounts(probe, config),
            Axis::Filesystem => seatbelt(
                probe,
                axis,
                "Seatbelt, by the profile; proved at each start by a file that it closes",
            ),
            Axis::Processes => processes(probe, config),
            Axis::Ipc => ipc(probe),
            Axis::Network => network(probe, config),
            Axis::Limits => limits(probe, config),
            Axis::Credentials => credentials(probe, config),
        })
        .into()
}

/// Enforced where the sandbox can be applied.
fn seatbelt(probe: &HostProbe, axis: Axis, why: &str) -> AxisReport {
    match &probe.seatbelt {
        Ok(()) => enforced(axis, why),
        Err(failed) => report(
            axis,
            Standing::Absent,
            format!("sandbox-exec cannot apply a profile: {failed}"),
            "start ephemerd from launchd, not from a program that is in a sandbox itself",
        ),
    }
}

/// Whether jobs have accounts that no other job has.
fn has_own_account(probe: &HostProbe, config: &Config) -> bool {
    probe.root && probe.accounts.is_ok() && config.native.accounts == Accounts::PerSlot
}

fn processes(probe: &HostProbe, config: &Config) -> AxisReport {
    let axis = Axis::Processes;
    let by_profile = seatbelt(
        probe,
        axis,
        "an account per slot, and Seatbelt: no signal and no look at processes outside of the sandbox",
    );
    if by_profile.standing == Standing::Enforced && !has_own_account(probe, config) {
        let why = "jobs share one uid; only the profile keeps them from each other's processes";
        return report(axis, Standing::Degraded, why, OWN_ACCOUNTS);
    }
    by_profile
}

/// What gives every job an account of its own.
const OWN_ACCOUNTS: &str = "run as root with native.accounts = \"per-slot\"";

/// Never more than degraded: what is left of a job by name cannot be listed.
fn ipc(probe: &HostProbe) -> AxisReport {
    let axis = Axis::Ipc;
    let by_profile = seatbelt(probe, axis, "");
    if by_profile.standing != Standing::Enforced {
        return by_profile;
    }
    let why = "Seatbelt and an account per slot keep jobs apart, but POSIX semaphores and shared memory outlive a \
               job, macOS cannot list them, and a later job of the slot may open them by name";
    report(
        axis,
        Standing::Degraded,
        why,
        "name `ipc` in native.allow_degraded",
    )
}

fn network(probe: &HostProbe, config: &Config) -> AxisReport {
    match config.egress.mode {
        EgressMode::Offline => seatbelt(
            probe,
            Axis::Network,
            "Seatbelt: no connection leaves this Mac; loopback is shared with the host",
        ),
        // What a packet filter cannot tell by account, ICMP for one, the profile closes.
        EgressMode::BlockLan => match seatbelt(probe, Axis::Network, "") {
            by_profile if by_profile.standing != Standing::Enforced => by_profile,
            _ => super::filtered(probe),
        },
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

fn credentials(probe: &HostProbe, config: &Config) -> AxisReport {
    let axis = Axis::Credentials;
    let by_profile = seatbelt(
        probe,
        axis,
        "a minimal environment, no inherited descriptors, daemon files closed, a keychain of its own",
    );
    if by_profile.standing == Standing::Enforced && !has_own_account(probe, config) {
        // The kernel shows argv and environment to everybody with the same uid (KERN_PROCARGS2).
        let why = "jobs share one uid; only the profile keeps them from each other's environment";
        return report(axis, Standing::Degraded, why, OWN_ACCOUNTS);
    }
    by_profile
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Os;
    use crate::sandbox::axes::refusal;

    fn capable() -> HostProbe {
        HostProbe {
            os: Os::MacOs,
            root: true,
            landlock_abi: Err("macOS has no Landlock".into()),
            missing_namespaces: vec!["pid".into()],
            seatbelt: Ok(()),
            seccomp: false,
            user_namespaces: Ok(()),
            accounts: Ok(()),
            packet_filter: Ok(()),
            open_files_hard: 1 << 20,
            groups: Err("macOS has none".to_owned()),
        }
    }

    fn config(text: &str) -> Config {
        crate::config::parse(text, "test.toml").unwrap().config
    }

    fn standings(probe: &HostProbe, text: &str) -> Vec<String> {
        assess(probe, &config(text))
            .iter()
            .map(|report| format!("{} {:?}", report.axis, report.standing))
            .collect()
    }

    #[test]
    fn a_capable_mac_enforces_every_axis_but_ipc() {
        assert_eq!(
            standings(&capable(), ""),
            [
                "accounts Enforced",
                "filesystem Enforced",
                "processes Enforced",
                "ipc Degraded",
                "network Enforced",
                "limits Enforced",
                "credentials Enforced"
            ]
        );
        let named = config("[native]\nallow_degraded = [\"ipc\"]");
        assert_eq!(refusal(&assess(&capable(), &named), &named), None);
        let why = refusal(&assess(&capable(), &config("")), &config("")).unwrap();
        assert!(
            why.starts_with("axis `ipc` is degraded") && why.contains("allow_degraded"),
            "{why}"
        );
    }

    #[test]
    fn a_mac_that_cannot_apply_a_sandbox_enforces_no_more_than_accounts_and_limits() {
        let nested = HostProbe {
            seatbelt: Err("exit status: 71: sandbox_apply: Operation not permitted".into()),
            ..capable()
        };
        let absent = ["filesystem", "processes", "ipc", "network", "credentials"];
        let found = standings(&nested, "");
        for axis in absent {
            assert!(found.contains(&format!("{axis} Absent")), "{found:?}");
        }
        let config = config("[native]\nallow_degraded = [\"ipc\"]");
        let why = refusal(&assess(&nested, &config), &config).unwrap();
        assert!(
            why.contains("sandbox_apply") && why.contains("\nhint: start ephemerd from launchd"),
            "{why}"
        );
    }

    #[test]
    fn jobs_that_would_share_an_account_do_not_start_whatever_may_be_degraded() {
        let all = "accounts = \"single\"\nallow_degraded = [\"accounts\", \"processes\", \"ipc\", \"network\", \"limits\"]";
        let without_root = HostProbe {
            root: false,
            ..capable()
        };
        for probe in [capable(), without_root] {
            let config = config(&format!("[native]\n{all}"));
            let why = refusal(&assess(&probe, &config), &config).unwrap();
            assert!(why.starts_with("axis `credentials` is degraded"), "{why}");
        }
    }

    #[test]
    fn jobs_that_share_an_account_are_kept_apart_by_the_profile_alone() {
        let found = standings(&capable(), "[native]\nslots = 1\naccounts = \"single\"");
        for axis in ["accounts", "processes", "limits", "credentials"] {
            assert!(found.contains(&format!("{axis} Degraded")), "{found:?}");
        }
        let open = standings(&capable(), "[egress]\nmode = \"open\"");
        assert!(open.contains(&"network Degraded".to_owned()), "{open:?}");
    }
}
