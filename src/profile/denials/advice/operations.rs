//! How each operation is answered, by its name.

/// How operations of one kind are answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// By a grant for reading, which includes executing.
    Read,
    /// By a grant for writing.
    Write,
    /// By where the connection goes.
    Connect,
    /// By what is listened on.
    Listen,
    /// By the name of the service.
    Lookup,
    /// Never.
    OnPurpose(&'static str),
    /// Not by this version.
    NoGrant(&'static str),
}

const OTHERS: &str = "other processes, with their arguments and environment, are nothing of a job's";
const HOST: &str = "it would change or show the host itself";
const SHARED: &str = "these names are shared by all accounts of the host";
const OUTSIDE: &str = "what is started so runs outside the job's sandbox";
pub(super) const DEVICE: &str = "jobs have no devices but those of the profile";

/// How operations are answered. Names that end in `*` stand for all that begin so; the longest one counts.
const OPERATIONS: [(&str, Kind); 46] = [
    ("appleevent-send", Kind::OnPurpose(OUTSIDE)),
    ("authorization-right-obtain", Kind::OnPurpose(HOST)),
    ("boot-arg-set", Kind::OnPurpose(HOST)),
    ("device-*", Kind::NoGrant(DEVICE)),
    ("file-chroot", Kind::OnPurpose(HOST)),
    ("file-clone", Kind::Write),
    ("file-ioctl", Kind::NoGrant(DEVICE)),
    (
        "file-issue-extension",
        Kind::OnPurpose("it would pass on access to other programs"),
    ),
    ("file-link", Kind::Write),
    ("file-lock", Kind::Write),
    ("file-map-executable", Kind::Read),
    ("file-mknod", Kind::OnPurpose(HOST)),
    ("file-mount*", Kind::OnPurpose(HOST)),
    ("file-read*", Kind::Read),
    ("file-revoke", Kind::OnPurpose(HOST)),
    ("file-search", Kind::Read),
    ("file-test-existence", Kind::Read),
    ("file-unmount", Kind::OnPurpose(HOST)),
    ("file-write*", Kind::Write),
    (
        "file-write-owner",
        Kind::OnPurpose("files of a job belong to its account"),
    ),
    (
        "file-write-setugid",
        Kind::OnPurpose("it would make programs that run as somebody else"),
    ),
    (
        "forbidden-exec-sugid",
        Kind::OnPurpose("set-uid programs cannot be started inside any sandbox of macOS"),
    ),
    (
        "forbidden-sandbox-reinit",
        Kind::NoGrant(
            "a sandbox inside a sandbox is impossible; switch off the tool's, as `swift build --disable-sandbox` does",
        ),
    ),
    ("fs-*", Kind::OnPurpose(HOST)),
    ("hid-control", Kind::NoGrant(DEVICE)),
    ("iokit*", Kind::NoGrant(DEVICE)),
    ("ipc-*", Kind::OnPurpose(SHARED)),
    ("job-creation", Kind::OnPurpose(OUTSIDE)),
    ("lsopen", Kind::OnPurpose(OUTSIDE)),
    ("mach-lookup", Kind::Lookup),
    ("mach-priv*", Kind::OnPurpose(OTHERS)),
    ("mach-register", Kind::OnPurpose(SHARED)),
    ("mach-task*", Kind::OnPurpose(OTHERS)),
    (
        "managed-preference-read",
        Kind::NoGrant("the settings of the host are not a job's"),
    ),
    ("network-bind", Kind::Listen),
    ("network-inbound", Kind::Listen),
    ("network-outbound", Kind::Connect),
    ("nvram*", Kind::OnPurpose(HOST)),
    ("process-exec*", Kind::Read),
    ("process-info*", Kind::OnPurpose(OTHERS)),
    ("signal", Kind::OnPurpose(OTHERS)),
    (
        "sysctl-read",
        Kind::NoGrant("the profile lists the names; those that show other processes never are among them"),
    ),
    ("sysctl-write", Kind::OnPurpose(HOST)),
    ("system-*", Kind::OnPurpose(HOST)),
    (
        "system-socket",
        Kind::OnPurpose("sockets that egress rules do not see: ICMP, raw, routing"),
    ),
    (
        "user-preference*",
        Kind::NoGrant("the settings of the host are not a job's"),
    ),
];

/// The row of [`OPERATIONS`] with the longest name that fits.
pub(super) fn kind(op: &str) -> Kind {
    let fits = |name: &str| match name.strip_suffix('*') {
        Some(beginning) => op.starts_with(beginning),
        None => op == name,
    };
    OPERATIONS
        .iter()
        .filter(|(name, _)| fits(name))
        .max_by_key(|(name, _)| name.len())
        .map_or(
            Kind::NoGrant("there is no grant for this operation"),
            |(_, kind)| *kind,
        )
}
