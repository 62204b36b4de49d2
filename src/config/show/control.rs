//! `[control]`.

use super::super::Control;
use super::{Rows, quote};

pub(super) fn rows_of(rows: &mut Rows<'_>, control: &Control) {
    let Control {
        socket,
        admin_group,
        listen,
    } = control;
    rows.add(&["control", "socket"], quote(socket.as_str()));
    rows.add(&["control", "admin_group"], quote(admin_group));
    if let Some(listen) = listen {
        rows.add(&["control", "listen"], quote(&listen.to_string()));
    }
}
