//! The postures of a Mac.

use ephemerd::host::Os;
use ephemerd::provision::question::{Answer, EntryKind};

use super::{Case, Told, UNCLEAR, case, off, on, policy};
use crate::told::{complained, printed, text, there};

pub(super) fn unset() -> Answer {
    complained("defaults-unset", 1)
}

fn updates(check: Answer, download: Answer, install: Answer) -> Told {
    vec![
        (
            "defaults read /Library/Preferences/com.apple.SoftwareUpdate AutomaticCheckEnabled",
            check,
        ),
        (
            "defaults read /Library/Preferences/com.apple.SoftwareUpdate AutomaticDownload",
            download,
        ),
        (
            "defaults read /Library/Preferences/com.apple.SoftwareUpdate AutomaticallyInstall",
            install,
        ),
    ]
}

fn login(user: Answer, password: Answer) -> Told {
    vec![("defaults read", user), ("look /etc/kcpassword", password)]
}

pub(super) fn icloud(own: Answer, everybody: Answer) -> Told {
    vec![("defaults read MobileMeAccounts", own), ("sh -c", everybody)]
}

fn spotlight(marker: Answer, data: Answer, root: Answer) -> Told {
    vec![
        ("look /var/lib/ephemerd/.metadata_never_index", marker),
        ("mdutil -s /System/Volumes/Data", data),
        ("mdutil -s /", root),
    ]
}

pub(super) fn safety() -> Vec<Case> {
    let mac = Os::MacOs;
    let one = |tool, answer| vec![(tool, answer)];
    let filevault = |verb: &str| match verb {
        "enable" => "? System Settings → Privacy & Security → FileVault, or: sudo fdesetup enable",
        _ => "? System Settings → Privacy & Security → FileVault, or: sudo fdesetup disable",
    };
    let csrutil = "? start recoveryOS, open Utilities → Terminal there, and: csrutil enable";
    let spctl = "? System Settings → Privacy & Security → Security, or: sudo spctl --global-enable";
    let fdesetup = "fdesetup status";
    let grants = "? System Settings → Privacy & Security → Full Disk Access and its neighbours: switch off what is named";
    vec![
        case(
            ("filevault", mac, on()),
            one(fdesetup, printed("fdesetup-on", 0)),
            "ok: on",
            &[],
        ),
        case(
            ("filevault", mac, on()),
            one(fdesetup, printed("fdesetup-off", 0)),
            "wrong: found off, wanted on",
            &[filevault("enable")],
        ),
        case(
            ("filevault", mac, off()),
            one(fdesetup, printed("fdesetup-on", 0)),
            "wrong: found on, wanted off",
            &[filevault("disable")],
        ),
        case(
            ("filevault", mac, on()),
            one(fdesetup, printed("fdesetup-encrypting", 0)),
            "unknown: it is changing: Encryption in progress: Percent completed = 42.1",
            &[UNCLEAR],
        ),
        case(
            ("sip", mac, on()),
            one("csrutil status", printed("csrutil-enabled", 0)),
            "ok: on",
            &[],
        ),
        case(
            ("sip", mac, on()),
            one("csrutil status", printed("csrutil-disabled", 0)),
            "wrong: found off, wanted on",
            &[csrutil],
        ),
        case(
            ("sip", mac, on()),
            one("csrutil status", printed("csrutil-custom", 0)),
            "wrong: found on in part (custom configuration), wanted on",
            &[csrutil],
        ),
        case(
            ("sip", mac, on()),
            one("csrutil status", printed("csrutil-unknown", 0)),
            "unknown: it says `System Integrity Protection status: unknown.`",
            &[UNCLEAR],
        ),
        case(
            ("gatekeeper", mac, on()),
            one("spctl --status", printed("spctl-enabled", 0)),
            "ok: on",
            &[],
        ),
        case(
            ("gatekeeper", mac, on()),
            one("spctl --status", printed("spctl-disabled", 1)),
            "wrong: found off, wanted on",
            &[spctl],
        ),
        case(
            ("gatekeeper", mac, on()),
            one("spctl --status", Answer::Missing),
            "unknown: what tells it is not there",
            &[UNCLEAR],
        ),
        case(
            ("tcc_grants", mac, off()),
            one("sqlite3", printed("sqlite3-grants-of-apps", 0)),
            "ok: none that jobs could use",
            &[],
        ),
        case(
            ("tcc_grants", mac, off()),
            one("sqlite3", printed("sqlite3-no-grants", 0)),
            "ok: none that jobs could use",
            &[],
        ),
        case(
            ("tcc_grants", mac, off()),
            one("sqlite3", printed("sqlite3-grants-of-jobs", 0)),
            "wrong: found /usr/local/bin/ephemerd has kTCCServiceSystemPolicyAllFiles, /opt/homebrew/bin/bash has kTCCServiceScreenCapture, wanted off",
            &[grants],
        ),
        case(
            ("tcc_grants", mac, off()),
            one("sqlite3", printed("sqlite3-broken-off", 0)),
            "unknown: sqlite3 told 1 of 12 grants",
            &[UNCLEAR],
        ),
        case(
            ("tcc_grants", mac, off()),
            one("sqlite3", complained("sqlite3-denied", 1)),
            "unknown: only a program with Full Disk Access can read the grants; check from a Terminal that has it",
            &[UNCLEAR],
        ),
    ]
}

pub(super) fn people() -> Vec<Case> {
    let mac = Os::MacOs;
    let by_hand = "? System Settings → Users & Groups → Automatically log in as: Off, or: sudo sysadminctl -autologin off";
    let sign_out = "? System Settings → the account at the top → Sign Out, as every user who is named";
    let remote =
        "? System Settings → General → Sharing → Remote Login, or: sudo systemsetup -setremotelogin off";
    let file = || there(EntryKind::File, 0o600);
    let ssh = |answer| vec![("systemsetup -getremotelogin", answer)];
    vec![
        case(
            ("auto_login", mac, off()),
            login(unset(), Answer::Missing),
            "ok: nobody",
            &[],
        ),
        case(
            ("auto_login", mac, off()),
            login(printed("defaults-auto-login", 0), Answer::Missing),
            "wrong: found as `admin`, wanted off",
            &[
                "+ /usr/bin/defaults delete /Library/Preferences/com.apple.loginwindow autoLoginUser",
                "- /usr/bin/defaults write /Library/Preferences/com.apple.loginwindow autoLoginUser admin",
            ],
        ),
        case(
            ("auto_login", mac, off()),
            login(printed("defaults-auto-login", 0), file()),
            "wrong: found as `admin`, wanted off",
            &[by_hand],
        ),
        case(
            ("auto_login", mac, off()),
            login(unset(), file()),
            "wrong: found nobody, but a password in /etc/kcpassword, wanted off",
            &[by_hand],
        ),
        case(
            ("auto_login", mac, off()),
            login(unset(), Answer::Denied),
            "unknown: /etc/kcpassword: it may not be looked at; root may",
            &[UNCLEAR],
        ),
        case(
            ("icloud", mac, off()),
            icloud(unset(), printed("icloud-nobody", 0)),
            "ok: nobody is signed in",
            &[],
        ),
        case(
            ("icloud", mac, off()),
            icloud(printed("defaults-icloud-out", 0), printed("icloud-nobody", 0)),
            "ok: nobody is signed in",
            &[],
        ),
        case(
            ("icloud", mac, off()),
            icloud(unset(), printed("icloud-everybody", 0)),
            "wrong: found signed in: alice, wanted off",
            &[sign_out],
        ),
        case(
            ("icloud", mac, off()),
            icloud(printed("defaults-icloud-in", 0), printed("icloud-nobody", 0)),
            "wrong: found whoever checks is signed in, wanted off",
            &[sign_out],
        ),
        case(
            ("icloud", mac, off()),
            icloud(unset(), printed("icloud-broken-off", 0)),
            "unknown: exit code 0: out /Users/admin/Library/Preferences/MobileMeAccounts.plist",
            &[UNCLEAR],
        ),
        case(
            ("icloud", mac, off()),
            icloud(unset(), printed("icloud-unreadable", 0)),
            "unknown: defaults cannot read `unclear /Users/alice/Library/Preferences/MobileMeAccounts.plist`",
            &[UNCLEAR],
        ),
        case(
            ("remote_login", mac, off()),
            ssh(printed("systemsetup-remote-off", 0)),
            "ok: off",
            &[],
        ),
        case(
            ("remote_login", mac, off()),
            ssh(printed("systemsetup-remote-on", 0)),
            "wrong: found on, wanted off",
            &[remote],
        ),
        case(
            ("remote_login", mac, off()),
            ssh(printed("systemsetup-refused", 0)),
            "unknown: systemsetup says `You need administrator access to run this tool... exiting!`",
            &[UNCLEAR],
        ),
    ]
}

pub(super) fn settings() -> Vec<Case> {
    let mac = Os::MacOs;
    let pmset = |name| vec![("pmset -g custom", printed(name, 0))];
    let time = |name| vec![("systemsetup -getusingnetworktime", printed(name, 0))];
    let (yes, no) = (|| printed("defaults-on", 0), || printed("defaults-off", 0));
    vec![
        case(("sleep", mac, off()), pmset("pmset-server"), "ok: never", &[]),
        case(
            ("sleep", mac, off()),
            pmset("pmset-as-bought"),
            "wrong: found after 1 minutes, wanted off",
            &["+ /usr/bin/pmset -c sleep 0", "- /usr/bin/pmset -c sleep 1"],
        ),
        case(
            ("sleep", mac, off()),
            pmset("pmset-laptop"),
            "wrong: found after 10 minutes, wanted off",
            &["+ /usr/bin/pmset -b sleep 0", "- /usr/bin/pmset -b sleep 10"],
        ),
        case(
            ("sleep", mac, off()),
            pmset("garbage"),
            "unknown: pmset tells nothing of `sleep`",
            &[UNCLEAR],
        ),
        case(
            ("restart_after_power_failure", mac, on()),
            pmset("pmset-server"),
            "ok: on",
            &[],
        ),
        case(
            ("restart_after_power_failure", mac, on()),
            pmset("pmset-as-bought"),
            "wrong: found off, wanted on",
            &[
                "+ /usr/bin/pmset -c autorestart 1",
                "- /usr/bin/pmset -c autorestart 0",
            ],
        ),
        case(
            ("restart_after_power_failure", mac, on()),
            pmset("pmset-laptop"),
            "unknown: pmset tells nothing of `autorestart`",
            &[UNCLEAR],
        ),
        case(
            ("automatic_updates", mac, policy("check")),
            updates(yes(), no(), no()),
            "ok: check",
            &[],
        ),
        case(
            ("automatic_updates", mac, policy("off")),
            updates(no(), yes(), yes()),
            "ok: off",
            &[],
        ),
        case(
            ("automatic_updates", mac, policy("check")),
            updates(yes(), yes(), yes()),
            "wrong: found install, wanted check",
            &[
                "+ /usr/bin/defaults write /Library/Preferences/com.apple.SoftwareUpdate AutomaticDownload -bool false",
                "- /usr/bin/defaults write /Library/Preferences/com.apple.SoftwareUpdate AutomaticDownload -bool true",
                "+ /usr/bin/defaults write /Library/Preferences/com.apple.SoftwareUpdate AutomaticallyInstallMacOSUpdates -bool false",
                "- /usr/bin/defaults write /Library/Preferences/com.apple.SoftwareUpdate AutomaticallyInstallMacOSUpdates -bool true",
            ],
        ),
        case(
            ("automatic_updates", mac, policy("download")),
            updates(yes(), unset(), no()),
            "wrong: found AutomaticDownload is not set, wanted download",
            &[
                "+ /usr/bin/defaults write /Library/Preferences/com.apple.SoftwareUpdate AutomaticDownload -bool true",
                "- /usr/bin/defaults delete /Library/Preferences/com.apple.SoftwareUpdate AutomaticDownload",
            ],
        ),
        case(
            ("automatic_updates", mac, policy("check")),
            updates(yes(), printed("defaults-auto-login", 0), no()),
            "unknown: AutomaticDownload is `admin`",
            &[UNCLEAR],
        ),
        case(
            ("time_sync", mac, on()),
            time("systemsetup-time-on"),
            "ok: on",
            &[],
        ),
        case(
            ("time_sync", mac, on()),
            time("systemsetup-time-off"),
            "wrong: found off, wanted on",
            &[
                "+ /usr/sbin/systemsetup -setusingnetworktime on",
                "- /usr/sbin/systemsetup -setusingnetworktime off",
            ],
        ),
        case(
            ("time_sync", mac, on()),
            time("systemsetup-refused"),
            "unknown: systemsetup says `You need administrator access to run this tool... exiting!`",
            &[UNCLEAR],
        ),
        case(
            ("packet_filter", mac, on()),
            vec![("ability", text("pf"))],
            "ok: pf",
            &[],
        ),
        case(
            ("packet_filter", mac, on()),
            vec![("ability", Answer::Missing)],
            "wrong: found none, wanted on",
            &["? `ephemerd egress status` tells more"],
        ),
    ]
}

/// Spotlight: of the data volume, and of `/` where that one tells nothing.
pub(super) fn indexing() -> Vec<Case> {
    let told = |data: &str, root: &str| spotlight(Answer::Missing, printed(data, 0), printed(root, 0));
    let marked = || spotlight(there(EntryKind::File, 0o644), Answer::TimedOut, Answer::TimedOut);
    let off = || ("spotlight", Os::MacOs, off());
    vec![
        case(
            off(),
            told("mdutil-disabled", "mdutil-root-disabled"),
            "ok: does not index /System/Volumes/Data",
            &[],
        ),
        case(
            off(),
            told("mdutil-unknown", "mdutil-root-disabled"),
            "ok: does not index /",
            &[],
        ),
        case(
            off(),
            marked(),
            "ok: `.metadata_never_index` in /var/lib/ephemerd",
            &[],
        ),
        case(
            off(),
            told("mdutil-enabled", "mdutil-root-disabled"),
            "wrong: found indexes /System/Volumes/Data, wanted off",
            &[
                "+ /usr/bin/mdutil -i off /System/Volumes/Data",
                "- /usr/bin/mdutil -i on /System/Volumes/Data",
            ],
        ),
        case(
            off(),
            told("mdutil-unknown", "mdutil-root-scanning"),
            "wrong: found indexes /, wanted off",
            &["+ /usr/bin/mdutil -i off /", "- /usr/bin/mdutil -i on /"],
        ),
        case(
            ("spotlight", Os::MacOs, on()),
            marked(),
            "wrong: found `.metadata_never_index` in /var/lib/ephemerd, wanted on",
            &["? remove /var/lib/ephemerd/.metadata_never_index"],
        ),
        case(
            off(),
            told("mdutil-read-only", "mdutil-root-disabled"),
            "unknown: mdutil says of /System/Volumes/Data: Index is read-only.",
            &[UNCLEAR],
        ),
        case(
            off(),
            told("mdutil-unknown", "garbage"),
            "unknown: it says `%PDF-1.7 \u{20} 503 Service Unavailable`",
            &[UNCLEAR],
        ),
        case(
            off(),
            told("mdutil-other-volume", "mdutil-root-disabled"),
            "unknown: it says `/Volumes/Backup:`",
            &[UNCLEAR],
        ),
    ]
}
