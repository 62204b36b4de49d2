//! Targets: what an operation is tried on, with everything about it that filters can ask for.
//!
//! What is not said is assumed, and the assumptions are those of a job: a file is a regular one, the process has
//! no entitlements and no extensions, a connecting socket is not bound.

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;

use super::filter::fold;
use super::vocabulary::{Argument, OperationId, Vocabulary};

/// Links of a macOS system volume that stand for folders of the data volume; the kernel compares what they
/// lead to (macOS 14.4.1 and 26, observed by others).
const LINKS: [(&str, &str); 3] = [
    ("/etc", "/private/etc"),
    ("/tmp", "/private/tmp"),
    ("/var", "/private/var"),
];

/// The data volume's own name for what firmlinks show at the root.
const DATA_VOLUME: &str = "/System/Volumes/Data";

/// `(target …)` as filters number it.
mod relation {
    pub(super) const SELF: i64 = 1;
    pub(super) const PGRP: i64 = 2;
    pub(super) const OTHERS: i64 = 3;
    pub(super) const CHILDREN: i64 = 4;
    pub(super) const SAME_SANDBOX: i64 = 5;
    pub(super) const INITPROC: i64 = 6;
}

/// Why a text is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no target for `{operation}`\nhint: {hint}")]
pub struct TargetError {
    /// The text.
    pub text: String,
    /// The operation.
    pub operation: String,
    /// What would be one.
    pub hint: String,
}

/// Where an end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// 127.0.0.1 or ::1.
    Loopback,
    /// Another address of the machine itself.
    Own,
    /// An IPv4 loopback address written as IPv6 (`::ffff:127.0.0.1`), which `localhost` does not cover.
    MappedLoopback,
    /// Anywhere else.
    Other,
}

/// One end of an IP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Where it is.
    pub host: Host,
    /// Its port, where the protocol has ports.
    pub port: Option<u16>,
    /// Whether it is IPv6.
    pub v6: bool,
    /// The transport.
    pub transport: Transport,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Any other over IP, ICMP for example.
    Raw,
}

impl End {
    /// The end as the bits that [`super::filter::EndpointPattern`] compares.
    pub(super) fn bits(self) -> u8 {
        let family = if self.v6 { 2 } else { 1 };
        family
            | match self.transport {
                Transport::Tcp => 4,
                Transport::Udp => 8,
                Transport::Raw => 0,
            }
    }
}

/// What an operation is tried on.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// As it was asked for.
    asked: String,
    path: Option<Box<str>>,
    folded: OnceLock<Box<str>>,
    texts: Vec<(&'static str, Box<str>)>,
    numbers: Vec<(&'static str, i64)>,
    remote: Option<End>,
    local: Option<End>,
    unix: bool,
}

impl Target {
    /// Nothing in particular, for operations that are about no object.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// The file at `path`, a regular one; a path that leads through one of the system's links is resolved as
    /// the kernel resolves it.
    pub fn file(path: &str) -> Self {
        Self::node(path, 1)
    }

    /// The folder at `path`.
    pub fn folder(path: &str) -> Self {
        Self::node(path, 2)
    }

    fn node(path: &str, kind: i64) -> Self {
        Self {
            asked: path.to_owned(),
            path: Some(resolved(path).into()),
            numbers: vec![("vnode-type", kind)],
            ..Self::default()
        }
    }

    /// Whatever has this name for the filter called `filter`, as `global-name` or `sysctl-name`.
    pub fn named(filter: &'static str, name: &str) -> Self {
        Self {
            asked: name.to_owned(),
            texts: vec![(filter, name.into())],
            ..Self::default()
        }
    }

    /// A process, by its relation to the one that asks: `self`, `children`, `same-sandbox`, `pgrp`,
    /// `initproc` or `others`; `None` for any other word.
    pub fn process(relation: &str) -> Option<Self> {
        let relations: &[i64] = match relation {
            "self" => &[relation::SELF, relation::PGRP, relation::SAME_SANDBOX],
            "children" => &[relation::CHILDREN, relation::OTHERS, relation::SAME_SANDBOX],
            "same-sandbox" => &[relation::OTHERS, relation::SAME_SANDBOX],
            "pgrp" => &[relation::PGRP, relation::OTHERS, relation::SAME_SANDBOX],
            "initproc" => &[relation::INITPROC, relation::OTHERS],
            "others" => &[relation::OTHERS],
            _ => return None,
        };
        let numbers = relations
            .iter()
            .flat_map(|number| [("target", *number), ("semaphore-owner", *number)]);
        Some(Self {
            asked: relation.to_owned(),
            numbers: numbers.collect(),
            ..Self::default()
        })
    }

    /// The Unix socket at `path`.
    pub fn unix_socket(path: &str) -> Self {
        Self {
            asked: path.to_owned(),
            path: Some(resolved(path).into()),
            numbers: vec![("vnode-type", 6), ("socket-domain", 1), ("socket-type", 1)],
            unix: true,
            ..Self::default()
        }
    }

    /// The far end of a connection, from a socket that is not bound.
    pub fn remote(end: End) -> Self {
        Self {
            asked: shown(&end),
            remote: Some(end),
            numbers: socket_numbers(&end),
            ..Self::default()
        }
    }

    /// The near end of a socket that is bound or accepts.
    pub fn local(end: End) -> Self {
        Self {
            asked: shown(&end),
            local: Some(end),
            numbers: socket_numbers(&end),
            ..Self::default()
        }
    }

    /// Reads `text` as the target of `operation`, by what the operation can be restricted by:
    ///
    /// | operation | text |
    /// |---|---|
    /// | `file-*`, `process-exec*`, … | a path; with a slash at its end a folder |
    /// | `network-*` | `tcp:HOST:PORT`, `udp:HOST:PORT`, `ip:HOST`, or the path of a Unix socket |
    /// | `signal`, `process-info*`, … | `self`, `children`, `same-sandbox`, `pgrp`, `initproc`, `others` |
    /// | `system-socket` | `AF_INET`, `AF_INET/SOCK_RAW` |
    /// | `mach-lookup`, `sysctl-read`, … | a name; `FILTER=NAME` for another filter than the usual one |
    /// | everything else | `-` |
    ///
    /// # Errors
    /// The text is none of this.
    pub fn parse(vocabulary: &Vocabulary, operation: OperationId, text: &str) -> Result<Self, TargetError> {
        let known = vocabulary.operation(operation);
        let error = |hint: &str| TargetError {
            text: text.to_owned(),
            operation: known.name.to_owned(),
            hint: hint.to_owned(),
        };
        if text == "-" {
            return Ok(Self::nothing());
        }
        if let Some((filter, value)) = text.split_once('=')
            && let Some((id, _)) = vocabulary.filter_named(filter)
        {
            let filter = vocabulary.filter(id);
            if !vocabulary.goes_with(operation, filter.category) {
                return Err(error(&format!(
                    "`{}` does not go with this operation",
                    filter.name
                )));
            }
            return match &filter.argument {
                Argument::Pattern if filter.name == "path" => Ok(Self::file(value)),
                Argument::Pattern => Ok(Self::named(filter.name, value)),
                Argument::Named(names) => {
                    let number = names.get(value).copied().or_else(|| value.parse().ok());
                    let number = number.ok_or_else(|| error("give a number or one of the filter's names"))?;
                    Ok(Self {
                        asked: text.to_owned(),
                        numbers: vec![(filter.name, number)],
                        ..Self::default()
                    })
                }
                Argument::Flag | Argument::Endpoint => Err(error("this filter cannot be asked about")),
            };
        }
        let categories = known.categories.clone().unwrap_or_default();
        let has = |category| categories.contains(&category);
        if has("network") {
            return network(known.name, text).ok_or_else(|| {
                error("write tcp:HOST:PORT, udp:HOST:PORT, ip:HOST or the path of a Unix socket")
            });
        }
        if known.name.starts_with("process-info") || has("target") && !text.starts_with('/') {
            let hint = "write self, children, same-sandbox, pgrp, initproc or others";
            return Self::process(text).ok_or_else(|| error(hint));
        }
        let usual = categories.iter().find_map(|category| usual_filter(category));
        // POSIX shared memory and some services have names that look like paths.
        if has("path") || usual.is_none() && text.starts_with('/') {
            return path(text).ok_or_else(|| error("write an absolute path without `.` and `..`"));
        }
        if has("socket") {
            return socket(vocabulary, text).ok_or_else(|| error("write AF_INET or AF_INET/SOCK_RAW"));
        }
        usual
            .map(|filter| Self::named(filter, text))
            .ok_or_else(|| error("this operation has no target; write `-`"))
    }

    /// The path, resolved.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The path as a volume that ignores case compares it.
    pub(super) fn folded_path(&self) -> &str {
        self.folded
            .get_or_init(|| fold(self.path.as_deref().unwrap_or_default()).into())
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.texts.iter().map(|(name, text)| (*name, &**text))
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.numbers.iter().copied()
    }

    pub(super) fn end(&self, local: bool) -> Option<&End> {
        if local {
            self.local.as_ref()
        } else {
            self.remote.as_ref()
        }
    }

    pub(super) fn is_self(&self) -> bool {
        self.numbers.contains(&("target", relation::SELF))
    }

    pub(super) fn is_unix_socket(&self) -> bool {
        self.unix
    }

    /// The same target with `number` for the filter called `filter`.
    pub fn with_number(mut self, filter: &'static str, number: i64) -> Self {
        self.numbers.retain(|(name, _)| *name != filter);
        self.numbers.push((filter, number));
        self
    }

    /// The same target with `text` for the filter called `filter`.
    pub(in crate::profile) fn with_text(mut self, filter: &'static str, text: &str) -> Self {
        self.texts.retain(|(name, _)| *name != filter);
        self.texts.push((filter, text.into()));
        self
    }

    /// Whether the target is one end of a connection, which settles what kind of socket it belongs to.
    pub(in crate::profile) fn is_connection(&self) -> bool {
        self.unix || self.remote.is_some() || self.local.is_some()
    }

    /// The same target without what its name for `filter` is, for a kernel that does not look at it.
    pub(super) fn without_text(&self, filter: &str) -> Self {
        let mut target = self.clone();
        target.texts.retain(|(name, _)| *name != filter);
        target
    }

    /// The same process, if it is in the same sandbox as well.
    pub(super) fn in_same_sandbox(&self) -> Self {
        let mut target = self.clone();
        target.numbers.push(("target", relation::SAME_SANDBOX));
        target
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.asked.as_str()) {
            (Some(path), _) => f.write_str(path),
            (None, "") => f.write_str("-"),
            (None, asked) => f.write_str(asked),
        }
    }
}

/// `path` as the kernel compares it: without the system's links and without the data volume's own name. The
/// links themselves stay, for whoever looks at them.
pub fn resolved(path: &str) -> String {
    let path = match path.strip_prefix(DATA_VOLUME) {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    for (link, folder) in LINKS {
        if let Some(rest) = path.strip_prefix(link)
            && rest.starts_with('/')
        {
            return format!("{folder}{rest}");
        }
    }
    path.to_owned()
}

fn path(text: &str) -> Option<Target> {
    let plain = text.split('/').all(|part| part != "." && part != "..") && !text.contains("//");
    if !text.starts_with('/') || !plain {
        return None;
    }
    Some(match text.strip_suffix('/') {
        Some("") => Target::folder("/"),
        Some(folder) => Target::folder(folder),
        None => Target::file(text),
    })
}

fn network(operation: &str, text: &str) -> Option<Target> {
    if text.starts_with('/') {
        return Some(Target::unix_socket(text));
    }
    let (transport, rest) = text.split_once(':')?;
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "ip" => Transport::Raw,
        _ => return None,
    };
    let (host, port) = if transport == Transport::Raw {
        (rest, None)
    } else {
        let (host, port) = rest.rsplit_once(':')?;
        (host, Some(port.parse().ok()?))
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (host, v6) = match host {
        "localhost" => (Host::Loopback, false),
        "own" => (Host::Own, false),
        "*" => (Host::Other, false),
        address => {
            let address: IpAddr = address.parse().ok()?;
            (host_of(address), address.is_ipv6())
        }
    };
    let end = End {
        host,
        port,
        v6,
        transport,
    };
    let near = matches!(operation, "network-bind" | "network-inbound");
    Some(if near {
        Target::local(end)
    } else {
        Target::remote(end)
    })
}

/// What an address is to the kernel's `localhost`.
fn host_of(address: IpAddr) -> Host {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()) => Host::MappedLoopback,
        address if address.is_loopback() => Host::Loopback,
        _ => Host::Other,
    }
}

fn socket(vocabulary: &Vocabulary, text: &str) -> Option<Target> {
    let mut numbers = Vec::new();
    for (part, filter) in text
        .split('/')
        .zip(["socket-domain", "socket-type", "socket-protocol"])
    {
        let (id, _) = vocabulary.filter_named(filter)?;
        let Argument::Named(names) = &vocabulary.filter(id).argument else {
            return None;
        };
        let number = names.get(part).copied().or_else(|| part.parse().ok())?;
        numbers.push((filter, number));
    }
    Some(Target {
        asked: text.to_owned(),
        numbers,
        ..Target::default()
    })
}

/// The filter that a plain name is meant for.
fn usual_filter(category: &str) -> Option<&'static str> {
    Some(match category {
        "mach" => "global-name",
        "sysctl" => "sysctl-name",
        "posix-ipc" => "ipc-posix-name",
        "preference-domain" => "preference-domain",
        "notification" => "notification-name",
        "iokit-user-client" | "iokit-connection" | "iokit-registry-entry-class" => {
            "iokit-registry-entry-class"
        }
        "info" => "info-type",
        "ae-destination" => "appleevent-destination",
        "auth-right-name" => "right-name",
        "nvram" => "nvram-variable",
        "kext-bundle-id" => "kext-bundle-id",
        "mac-policy" | "mac-syscall" => "mac-policy-name",
        _ => return None,
    })
}

fn socket_numbers(end: &End) -> Vec<(&'static str, i64)> {
    let domain = if end.v6 { 30 } else { 2 };
    let kind = match end.transport {
        Transport::Tcp => 1,
        Transport::Udp => 2,
        Transport::Raw => 3,
    };
    vec![("socket-domain", domain), ("socket-type", kind)]
}

fn shown(end: &End) -> String {
    let transport = match end.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Raw => "ip",
    };
    let host = match (end.host, end.v6) {
        (Host::Loopback, false) => "127.0.0.1",
        (Host::Loopback, true) => "[::1]",
        (Host::MappedLoopback, _) => "[::ffff:127.0.0.1]",
        (Host::Own, _) => "own",
        (Host::Other, _) => "*",
    };
    match end.port {
        Some(port) => format!("{transport}:{host}:{port}"),
        None => format!("{transport}:{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sbpl::Release;

    fn parse(operation: &str, text: &str) -> Result<Target, TargetError> {
        let vocabulary = Vocabulary::of(Release::NEWEST);
        Target::parse(vocabulary, vocabulary.asked(operation).unwrap(), text)
    }

    #[test]
    fn paths_are_resolved_as_the_kernel_does() {
        assert_eq!(resolved("/tmp/x"), "/private/tmp/x");
        assert_eq!(resolved("/etc"), "/etc", "the link itself");
        assert_eq!(resolved("/etcetera"), "/etcetera");
        assert_eq!(resolved("/System/Volumes/Data/Users/a"), "/Users/a");
        assert_eq!(
            parse("file-read-data", "/var/db/x").unwrap().path(),
            Some("/private/var/db/x")
        );
    }

    #[test]
    fn a_path_that_no_kernel_would_compare_is_no_target() {
        for text in ["a", "/a/../b", "/a//b", "/./a"] {
            assert!(parse("file-read-data", text).is_err(), "{text}");
        }
    }

    #[test]
    fn connections_are_read_with_family_transport_and_host() {
        let end = |text| *parse("network-outbound", text).unwrap().end(false).unwrap();
        assert_eq!(end("tcp:127.0.0.1:22").host, Host::Loopback);
        assert_eq!(end("tcp:[::1]:22").bits(), 2 | 4);
        assert_eq!(end("udp:10.0.0.1:53").host, Host::Other);
        assert_eq!(end("tcp:[::ffff:127.0.0.1]:80").host, Host::MappedLoopback);
        assert_eq!(end("ip:192.0.2.1").port, None);
        assert!(
            parse("network-bind", "tcp:localhost:80")
                .unwrap()
                .end(true)
                .is_some()
        );
        assert!(parse("network-outbound", "/var/run/x").unwrap().is_unix_socket());
        for bad in [
            "tcp:localhost",
            "tcp:localhost:99999",
            "sctp:localhost:1",
            "localhost:80",
        ] {
            assert!(parse("network-outbound", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processes_sockets_and_names_are_read_by_operation() {
        assert!(
            parse("signal", "others")
                .unwrap()
                .numbers()
                .any(|n| n == ("target", 3))
        );
        assert!(parse("signal", "everybody").is_err());
        assert!(parse("process-info-pidinfo", "self").is_ok());
        assert!(
            parse("mach-lookup", "com.apple.trustd")
                .unwrap()
                .texts()
                .any(|t| t == ("global-name", "com.apple.trustd"))
        );
        assert!(
            parse("mach-lookup", "local-name=x")
                .unwrap()
                .texts()
                .any(|t| t == ("local-name", "x"))
        );
        assert!(
            parse("system-socket", "AF_INET/SOCK_RAW")
                .unwrap()
                .numbers()
                .any(|n| n == ("socket-type", 3))
        );
        assert!(parse("job-creation", "-").is_ok());
        assert!(parse("mach-lookup", "sysctl-name=x").is_err());
    }
}
