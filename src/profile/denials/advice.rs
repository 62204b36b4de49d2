//! What would allow a denied operation: a named grant of the configuration, or nothing, and why.
//!
//! There is no advice to weaken what keeps jobs apart. A grant that the configuration would refuse is never
//! named: both ask the same function.

mod operations;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::Ground;
use crate::config::{EgressMode, Grant, comparable, granted};
use crate::job::JobId;
use operations::{DEVICE, Kind, kind};

/// What would allow something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "advice", rename_all = "kebab-case")]
pub enum Advice {
    /// A path in `extra_read` or `extra_write`, of the repository or of `[native]`.
    Grant {
        /// The key.
        key: &'static str,
        /// The path.
        path: Utf8PathBuf,
    },
    /// `egress.mode = "block-lan"`, which is for every job.
    Egress,
    /// Nothing, on purpose.
    OnPurpose {
        /// Why not.
        why: String,
    },
    /// Nothing that this version has a grant for.
    NoGrant {
        /// What to do instead, or why there is none.
        why: String,
    },
}

impl Advice {
    fn on_purpose(why: impl Into<String>) -> Self {
        Self::OnPurpose { why: why.into() }
    }

    fn no_grant(why: impl Into<String>) -> Self {
        Self::NoGrant { why: why.into() }
    }
}

/// Services that would run something, or show something, outside the job's sandbox.
const SERVICES_OUTSIDE: [&str; 8] = [
    "com.apple.CoreSimulator",
    "com.apple.CoreServices.coreservicesd",
    "com.apple.coreservices.",
    "com.apple.lsd.",
    "com.apple.pasteboard",
    "com.apple.tccd",
    "com.apple.windowserver",
    "com.apple.xpc.",
];

/// Services that reach the network for their clients; profiles with network open them.
const SERVICES_OF_THE_NETWORK: [&str; 5] = [
    "com.apple.SystemConfiguration.DNSConfiguration",
    "com.apple.dnssd.service",
    "com.apple.mDNSResponder.",
    "com.apple.networkd",
    "com.apple.nsurlsessiond",
];

/// Folders whose children belong together: the child is granted, not the folder.
const CONTAINERS: [&str; 8] = [
    "/applications",
    "/opt",
    "/srv",
    "/usr/local",
    "/var/db",
    "/var/lib",
    "/var/run",
    "/volumes",
];

/// Names of folders and files that hold secrets, wherever they are.
const SECRETS: [&str; 9] = [
    ".aws",
    ".docker",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".netrc",
    ".npmrc",
    ".ssh",
    "keychains",
];

/// Targets that programs are denied at their start and do without.
pub(super) fn noise(op: &str, target: Option<&str>) -> Option<&'static str> {
    let target = target?;
    match (op, target) {
        (_, "/dev/dtracehelper") => Some("every program offers itself to dtrace at its start"),
        (_, "/dev/tty") => Some("a job has no terminal"),
        (
            "mach-lookup",
            "com.apple.analyticsd" | "com.apple.diagnosticd" | "com.apple.SystemConfiguration.configd",
        ) => Some("libraries of the system look for it and do without"),
        _ if target.ends_with("/.CFUserTextEncoding") => {
            Some("libraries of the system look for it and do without")
        }
        _ if target.contains("/hsperfdata_") => Some("Java keeps statistics there and does without"),
        _ => None,
    }
}

/// What would allow `op` on `target`, which `job` was denied.
pub fn advise(job: &JobId, op: &str, target: Option<&str>, ground: &Ground) -> Advice {
    let target = target.unwrap_or_default();
    if target.contains("<private>") {
        return Advice::no_grant("the log hides what it was tried on");
    }
    match kind(op) {
        Kind::Read => file(job, Grant::Read, target, ground),
        Kind::Write => file(job, Grant::Write, target, ground),
        Kind::Connect => connect(job, target, ground),
        Kind::Listen if target.starts_with('/') => socket(job, target, ground),
        Kind::Listen => {
            Advice::no_grant("listen on `localhost`, on a port of the job's own (EPHEMERD_PORTS)")
        }
        Kind::Lookup => lookup(target, ground),
        Kind::OnPurpose(why) => Advice::on_purpose(why),
        Kind::NoGrant(why) => Advice::no_grant(why),
    }
}

/// Advice for a file.
fn file(job: &JobId, grant: Grant, target: &str, ground: &Ground) -> Advice {
    if !target.starts_with('/') {
        return Advice::no_grant("the log does not say which file");
    }
    if let Some(why) = daemon_state(job, target, ground) {
        return why;
    }
    let path = Utf8Path::new(target);
    let plain = comparable(path);
    if let Some(why) = never(&plain) {
        return Advice::on_purpose(why);
    }
    if plain.starts_with("/dev") {
        return Advice::no_grant(DEVICE);
    }
    if grant == Grant::Write && plain.starts_with("/opt/homebrew") {
        return Advice::on_purpose("the host's Homebrew, whose programs others run");
    }
    let key = match grant {
        Grant::Read => "extra_read",
        Grant::Write => "extra_write",
    };
    let data_dir = Some(ground.data_dir.as_path());
    match granted(folder(path).as_str(), grant, data_dir).or_else(|_| granted(target, grant, data_dir)) {
        Ok(path) => Advice::Grant { key, path },
        Err(why) => Advice::on_purpose(why.lines().next().unwrap_or_default()),
    }
}

/// Why nothing is said about a file, when it belongs to the daemon or to some job.
fn daemon_state(job: &JobId, target: &str, ground: &Ground) -> Option<Advice> {
    let plain = comparable(Utf8Path::new(target));
    let data_dir = comparable(&ground.data_dir);
    if plain.starts_with(data_dir.join("native").join(job.as_str())) {
        return Some(Advice::no_grant(
            "this is the job's own folder: `ephemerd profile verify` tells whether the profile is at fault",
        ));
    }
    let is_daemons = plain.starts_with(&data_dir) || plain == comparable(&ground.config_file);
    is_daemons.then(|| Advice::on_purpose("the daemon's state and other jobs' folders are never granted"))
}

/// Why a path, in comparable form, is no job's to have.
fn never(plain: &Utf8Path) -> Option<&'static str> {
    let is_shared_user = plain.starts_with("/users/shared");
    let mut names = plain.components().map(|part| part.as_str());
    if plain.starts_with("/users") && !is_shared_user || plain.starts_with("/var/root") {
        Some("a person's home folder; put what jobs need into a folder of its own")
    } else if names.any(|name| SECRETS.contains(&name)) {
        Some("it holds secrets")
    } else if plain.starts_with("/tmp") || plain.starts_with("/var/tmp") {
        Some("all accounts share it; jobs have a folder of their own, TMPDIR")
    } else if plain.starts_with("/var/folders") {
        Some("temporary files of accounts; the profile shows a job those of its own")
    } else {
        None
    }
}

/// The folder that is sensibly granted for a path: a bundle, a child of a container, or the parent, unless the
/// parent is a folder of the root, which would be too much.
fn folder(path: &Utf8Path) -> &Utf8Path {
    let is_bundle = |part: &&Utf8Path| {
        part.extension()
            .is_some_and(|ending| ["app", "xctoolchain"].contains(&ending))
    };
    let from_the_top: Vec<&Utf8Path> = path.ancestors().collect();
    if let Some(bundle) = from_the_top.iter().rev().find(|part| is_bundle(part)) {
        return bundle;
    }
    let is_child = |part: &&Utf8Path| {
        part.parent()
            .is_some_and(|parent| CONTAINERS.contains(&comparable(parent).as_str()))
    };
    if let Some(child) = from_the_top.iter().find(|part| is_child(part)) {
        return child;
    }
    match path.parent() {
        Some(parent) if names(&comparable(parent)) > 1 => parent,
        Some(_) | None => path,
    }
}

/// How many names a path has.
fn names(path: &Utf8Path) -> usize {
    path.components()
        .filter(|part| matches!(part, Utf8Component::Normal(_)))
        .count()
}

/// Advice for a connection; the target is `HOST:PORT`, perhaps after `remote:`, or a Unix socket's path.
fn connect(job: &JobId, target: &str, ground: &Ground) -> Advice {
    if target.starts_with('/') && comparable(Utf8Path::new(target)) != "/var/run/mdnsresponder" {
        return socket(job, target, ground);
    }
    let address = target.strip_prefix("remote:").unwrap_or(target);
    let is_loopback = ["localhost", "127.", "::1", "[::1]"]
        .iter()
        .any(|beginning| address.starts_with(beginning));
    if is_loopback {
        return Advice::on_purpose("a port of this host that jobs are kept from");
    }
    network(ground)
}

/// Advice for what needs the network.
fn network(ground: &Ground) -> Advice {
    match ground.egress {
        EgressMode::Offline => Advice::Egress,
        EgressMode::BlockLan | EgressMode::Open => Advice::no_grant(
            "`egress.mode` lets jobs onto the network already; the profile denies this for another reason",
        ),
    }
}

/// Advice for a Unix socket.
fn socket(job: &JobId, target: &str, ground: &Ground) -> Advice {
    daemon_state(job, target, ground)
        .unwrap_or_else(|| Advice::on_purpose("a socket of the host: what listens there is not fenced in"))
}

/// Advice for a service of launchd.
fn lookup(service: &str, ground: &Ground) -> Advice {
    let is_among = |services: &[&str]| services.iter().any(|beginning| service.starts_with(beginning));
    if is_among(&SERVICES_OUTSIDE) {
        Advice::on_purpose("this service acts for its clients outside their sandbox")
    } else if is_among(&SERVICES_OF_THE_NETWORK) {
        network(ground)
    } else {
        Advice::no_grant(
            "there is no grant for services; if a build tool needs this one, the profile lacks it",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> Ground {
        Ground {
            data_dir: "/var/lib/ephemerd".into(),
            config_file: "/private/etc/ephemerd/ephemerd.toml".into(),
            egress: EgressMode::Offline,
        }
    }

    fn told(op: &str, target: &str) -> String {
        let job: JobId = "mwt2vlf2ewj".parse().unwrap();
        let target = Some(target).filter(|target| !target.is_empty());
        match advise(&job, op, target, &ground()) {
            Advice::Grant { key, path } => format!("{key} {path}"),
            Advice::Egress => "egress".into(),
            Advice::OnPurpose { why } => format!("on purpose: {why}"),
            Advice::NoGrant { why } => format!("no grant: {why}"),
        }
    }

    #[test]
    fn names_the_grant_with_the_sensible_folder() {
        for (op, target, grant) in [
            (
                "file-read-data",
                "/opt/toolchain/bin/cc",
                "extra_read /opt/toolchain",
            ),
            ("process-exec", "/opt/toolchain", "extra_read /opt/toolchain"),
            (
                "file-map-executable",
                "/Applications/Xcode.app/Contents/Developer/usr/lib/libclang.dylib",
                "extra_read /Applications/Xcode.app",
            ),
            (
                "file-read-metadata",
                "/private/etc/x.conf",
                "extra_read /private/etc/x.conf",
            ),
            (
                "file-read-data",
                "/private/var/db/timezone/tz/2026a/icutz",
                "extra_read /private/var/db/timezone",
            ),
            (
                "file-read-data",
                "/Library/Developer/PrivateFrameworks/X/Y",
                "extra_read /Library/Developer/PrivateFrameworks/X",
            ),
            (
                "file-write-create",
                "/Volumes/cache/a/b",
                "extra_write /Volumes/cache",
            ),
            (
                "file-write-unlink",
                "/Users/Shared/cache/a",
                "extra_write /Users/Shared/cache",
            ),
            (
                "file-read-data",
                "/var/lib/other/a/b",
                "extra_read /var/lib/other",
            ),
        ] {
            assert_eq!(told(op, target), grant, "{op} {target}");
        }
    }

    #[test]
    fn names_no_grant_for_what_keeps_jobs_apart() {
        for (op, target) in [
            ("file-read-data", "/var/lib/ephemerd/state/ledger.db"),
            (
                "file-read-data",
                "/private/var/lib/ephemerd/native/0000000000b/home/secret",
            ),
            ("file-read-metadata", "/PRIVATE/Var/lib/Ephemerd"),
            (
                "file-write-create",
                "/private/var/lib/ephemerd/native/0000000000b/work/x",
            ),
            ("network-outbound", "/private/var/lib/ephemerd/run/ephemerd.sock"),
            ("file-read-data", "/private/etc/ephemerd/ephemerd.toml"),
            ("file-read-data", "/Users/anna/.ssh/id_ed25519"),
            ("file-read-data", "/Library/Keychains/System.keychain"),
            ("file-read-data", "/private/tmp/x"),
            ("file-read-data", "/private/var/folders/zz/x/T/y"),
            ("file-write-data", "/usr/local/bin/x"),
            ("file-write-data", "/Library/x"),
            ("file-write-create", "/opt/homebrew/bin/x"),
            ("file-write-setugid", "/opt/x/y"),
            ("process-info-pidinfo", "others [501]"),
            ("signal", ""),
            ("mach-lookup", "com.apple.coreservices.launchservicesd"),
            ("mach-priv-task-port", ""),
            ("ipc-posix-shm-write-create", "x"),
            ("job-creation", "com.example.agent"),
            ("lsopen", ""),
            ("system-socket", ""),
            ("network-outbound", "localhost:22"),
            ("forbidden-exec-sugid", "/bin/ps"),
        ] {
            let told = told(op, target);
            assert!(told.starts_with("on purpose: "), "{op} {target}: {told}");
        }
    }

    #[test]
    fn says_what_it_has_no_grant_for() {
        for (op, target) in [
            ("file-read-data", "/var/lib/ephemerd/native/mwt2vlf2ewj/home/x"),
            ("file-read-data", "<private>"),
            ("file-read-data", ""),
            ("file-ioctl", "/dev/disk0"),
            ("mach-lookup", "com.apple.something"),
            ("network-bind", "local:*:80"),
            ("forbidden-sandbox-reinit", ""),
            ("operation-of-a-later-release", "x"),
        ] {
            let told = told(op, target);
            assert!(told.starts_with("no grant: "), "{op} {target}: {told}");
        }
    }

    #[test]
    fn a_grant_that_the_configuration_would_refuse_is_never_named() {
        for op in ["file-read-data", "file-write-data"] {
            for target in ["/", "/a\nb/c/d", "/opt/../x/y", "/sys/x/y"] {
                assert!(told(op, target).starts_with("on purpose: "), "{op} {target}");
            }
        }
    }

    #[test]
    fn connections_and_names_need_egress_unless_there_is_a_network() {
        for target in ["remote:*:443", "1.1.1.1:443", "/private/var/run/mDNSResponder"] {
            assert_eq!(told("network-outbound", target), "egress");
        }
        assert_eq!(told("mach-lookup", "com.apple.dnssd.service"), "egress");
        for egress in [EgressMode::BlockLan, EgressMode::Open] {
            let online = Ground { egress, ..ground() };
            let job: JobId = "mwt2vlf2ewj".parse().unwrap();
            let advice = advise(&job, "network-outbound", Some("remote:*:443"), &online);
            assert!(matches!(advice, Advice::NoGrant { .. }), "{advice:?}");
        }
    }

    #[test]
    fn the_start_of_every_program_is_noise() {
        assert!(noise("file-read-data", Some("/dev/dtracehelper")).is_some());
        assert!(noise("mach-lookup", Some("com.apple.analyticsd")).is_some());
        assert_eq!(noise("file-read-data", Some("com.apple.analyticsd")), None);
        assert_eq!(noise("signal", None), None);
    }

    proptest::proptest! {
        #[test]
        fn no_grant_ever_opens_what_is_the_daemons(
            op in "(file-read-data|file-write-create|process-exec)",
            target in "(/private)?/(var|Var)(/lib(/ephemerd(/native/[a-z0-9]{0,11})?)?)?[/a-zA-Z.]{0,20}",
        ) {
            let job: JobId = "mwt2vlf2ewj".parse().unwrap();
            let ground = ground();
            if let Advice::Grant { path, .. } = advise(&job, &op, Some(&target), &ground) {
                let (path, data_dir) = (comparable(&path), comparable(&ground.data_dir));
                proptest::prop_assert!(!path.starts_with(&data_dir) && !data_dir.starts_with(&path), "{path}");
            }
        }
    }
}
