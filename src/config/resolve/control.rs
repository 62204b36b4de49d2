//! `[control]`: sockets, who may use them, and where the page is served.

use std::net::SocketAddr;

use camino::{Utf8Path, Utf8PathBuf};

use super::super::grants;
use super::super::{Control, Egress, EgressMode, HostConfig, Listen};
use super::reader::{Complaint, Reader};
use super::values;

/// Longest path of a Unix socket in bytes, its final NUL not counted: 103 on macOS (unix(4)), 107 on Linux
/// (unix(7)).
const MAX_SOCKET_PATH: usize = 103;

pub(super) fn control(r: &mut Reader, host: Option<&HostConfig>) -> Option<Control> {
    let data_dir = host.map(|host| host.data_dir.as_path());
    let socket = r.must(&["control", "socket"], |_, raw| {
        Ok(socket_path(values::text(raw), data_dir)?)
    });
    let admin_group = r.must(&["control", "admin_group"], |_, raw| {
        let group = values::group(values::text(raw))?;
        match host {
            Some(host) if is_job_group(&group, &host.account) => Err(Complaint::from(format!(
                "`{group}` is a group of the accounts that jobs run as, so jobs could control the daemon\n\
                 hint: name a group of people"
            )))?,
            Some(_) | None => Ok(group),
        }
    });
    let listen = r.may(&["control", "listen"], |_, raw| Ok(listen(values::text(raw))?));
    Some(Control {
        socket: socket?,
        admin_group: admin_group?,
        listen: listen?,
    })
}

/// The absolute path of the control socket that `text` names, relative to `data_dir` when it is relative.
fn socket_path(text: &str, data_dir: Option<&Utf8Path>) -> Result<Utf8PathBuf, Complaint> {
    let joined = match data_dir {
        Some(data_dir) => data_dir.join(text),
        None => Utf8Path::new("/").join(text),
    };
    let path = grants::absolute(joined.as_str())?;
    if data_dir == Some(&path) {
        return Err(format!("`{text}` is `host.data_dir` itself\nhint: name a file in it").into());
    }
    Ok(short_enough(path)?)
}

fn short_enough(path: Utf8PathBuf) -> Result<Utf8PathBuf, String> {
    if path.as_str().len() > MAX_SOCKET_PATH {
        return Err(format!(
            "`{path}` is longer than the {MAX_SOCKET_PATH} bytes a socket's path may have\n\
             hint: name a shorter one, for example \"/run/ephemerd.sock\""
        ));
    }
    Ok(path)
}

/// Where the page and the metrics are served. What they show is for people of this host, so nothing but loopback will do.
fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return short_enough(grants::absolute(path)?).map(Listen::Unix);
    }
    let shown = text.escape_debug();
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("`{shown}` is no address with a port\nhint: for example \"127.0.0.1:9123\", or \"unix:/run/ephemerd/page.sock\"")
    })?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "`{shown}` is not loopback, and whoever reaches it would see every job\n\
             hint: \"127.0.0.1:{}\"; let a proxy that asks who comes, or `ssh -L`, carry it further",
            address.port()
        ));
    }
    Ok(Listen::Tcp(address))
}

/// Rules of the packet filter name ports, so they cannot keep jobs from one that the system chooses later.
pub(super) fn refuse_unnamed_port(r: &mut Reader, control: &Control, egress: &Egress) {
    if matches!(control.listen, Some(Listen::Tcp(address)) if address.port() == 0)
        && egress.mode == EgressMode::BlockLan
    {
        r.contradiction(
            &["control.listen"],
            "`control.listen` has port 0, and with `egress.mode = \"block-lan\"` jobs are kept from ports that are named\n\
             hint: name a port, 9123 for example"
                .to_owned(),
        );
    }
}

/// Whether jobs' accounts belong to `group`: slots are members of the service group, and the group of an
/// account may bear the account's name.
fn is_job_group(group: &str, account: &str) -> bool {
    group
        .strip_prefix(account)
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
}
