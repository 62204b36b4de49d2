//! Where the status page and the metrics are served.

use std::fmt;
use std::net::SocketAddr;

use camino::Utf8PathBuf;
use serde::Serialize;

/// Where the status page and the metrics are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listen {
    /// At an address of loopback. Jobs do not reach its port there; whoever else is on this host does.
    Tcp(SocketAddr),
    /// At a socket, for those who may use the control socket.
    Unix(Utf8PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}
