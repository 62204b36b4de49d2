//! What a browser or Prometheus may ask for, and who is turned away. Pure.

use std::net::IpAddr;

use crate::job::JobId;

/// Headers of every answer: no script, nothing from elsewhere, in nobody's frame, kept nowhere, and with no word of it to
/// other sites.
pub const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The page of everything.
    Overview,
    /// The page of one job.
    Job(JobId),
    /// The figures for Prometheus.
    Metrics,
    /// Whether jobs are let through.
    Health,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Something that would change things; nothing here does.
    #[error("only GET and HEAD are answered here")]
    Method,
    /// A name that leads here and is not this host's: a web page may have made it up, to read this one (DNS rebinding).
    #[error("this is answered as localhost, 127.0.0.1 or [::1] only")]
    Host,
    /// There is nothing of that name.
    #[error("there is nothing here; try / or /metrics")]
    NotFound,
}

impl Refusal {
    /// The status for it (RFC 9110).
    pub fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Host => 421,
            Self::NotFound => 404,
        }
    }
}

/// The head of a request, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// Whom it is for: every `Host` header, and the authority of its target where that has one.
    pub hosts: &'a [&'a str],
    /// Whether it came over the network's loopback, where a browser may have been led here by somebody's name.
    pub is_tcp: bool,
}

/// What a request asks for.
///
/// # Errors
/// It is turned away.
pub fn read(head: &Head<'_>) -> Result<Wish, Refusal> {
    if head.is_tcp && (head.hosts.is_empty() || !head.hosts.iter().all(|host| is_loopback(host))) {
        return Err(Refusal::Host);
    }
    if !["GET", "HEAD"].contains(&head.method) {
        return Err(Refusal::Method);
    }
    match head.path {
        "/" => Ok(Wish::Overview),
        "/metrics" => Ok(Wish::Metrics),
        "/healthz" => Ok(Wish::Health),
        path => path
            .strip_prefix("/jobs/")
            .and_then(|job| job.parse().ok())
            .map(Wish::Job)
            .ok_or(Refusal::NotFound),
    }
}

/// Whether `host`, with a port or without, is a name of loopback that no other site can have.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        // The last group of an IPv6 address, which stands in brackets.
        Some((_, rest)) if rest.ends_with(']') => (host, None),
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let is_port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: Option<IpAddr> = match inner {
        Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6),
        None => name.parse().ok().filter(IpAddr::is_ipv4),
    };
    is_port
        && (name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, host: &str) -> Result<Wish, Refusal> {
        let hosts = &[host];
        read(&Head {
            method,
            path,
            hosts,
            is_tcp: true,
        })
    }

    #[test]
    fn pages_metrics_and_health_are_answered_and_nothing_else_is() {
        let at = |path| ask("GET", path, "localhost:9123");
        assert_eq!(at("/"), Ok(Wish::Overview));
        assert_eq!(at("/metrics"), Ok(Wish::Metrics));
        assert_eq!(at("/healthz"), Ok(Wish::Health));
        assert_eq!(
            at("/jobs/mwt4gtraifc"),
            Ok(Wish::Job("mwt4gtraifc".parse().unwrap()))
        );
        for path in [
            "",
            "//",
            "/index.html",
            "/jobs",
            "/jobs/",
            "/jobs/../metrics",
            "/jobs/MWT4GTRAIFC",
            "*",
        ] {
            assert_eq!(at(path), Err(Refusal::NotFound), "{path}");
        }
    }

    #[test]
    fn nothing_can_be_changed() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get"] {
            assert_eq!(ask(method, "/", "localhost"), Err(Refusal::Method), "{method}");
        }
        assert_eq!(ask("HEAD", "/", "localhost"), Ok(Wish::Overview));
    }

    #[test]
    fn names_that_only_lead_to_loopback_are_turned_away() {
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:9123",
            "127.1.2.3",
            "[::1]",
            "[::1]:80",
        ] {
            assert!(ask("GET", "/", host).is_ok(), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9123",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:",
            "localhost:x",
            "::1",
            "[::1",
            "[127.0.0.1]",
            "192.168.1.1",
            "0.0.0.0:9123",
            "user@localhost",
            "localhost:80:80",
            "127.1",
        ] {
            assert_eq!(ask("GET", "/", host), Err(Refusal::Host), "{host}");
        }
    }

    #[test]
    fn every_name_a_request_gives_must_be_right_and_one_must_be_given() {
        let head = |hosts, is_tcp| {
            read(&Head {
                method: "GET",
                path: "/",
                hosts,
                is_tcp,
            })
        };
        assert_eq!(head(&[], true), Err(Refusal::Host));
        assert_eq!(head(&["localhost", "evil.example"], true), Err(Refusal::Host));
        assert_eq!(
            head(&["anything"], false),
            Ok(Wish::Overview),
            "a socket has no name"
        );
    }
}
