//! Slots: the N places of this host where a native job can run. A slot is an index, the account its jobs run
//! as, and a port range of its own.

use serde::{Deserialize, Serialize};

/// Numeric ids of the account a job runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The account's name, `_ephemerd1` for example.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// One place for a native job; for the packet filter also one for a guest, whose range of ports is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// 1 to N.
    pub index: u32,
    /// Who runs here.
    pub account: Account,
    /// First port of the slot's range.
    pub first_port: u16,
    /// Last port of the slot's range, inclusive.
    pub last_port: u16,
}

impl Slot {
    /// What the packet filter knows of a guest that sends as `account`.
    pub fn of_guest(index: u32, account: Account) -> Self {
        Self {
            index,
            account,
            first_port: 1,
            last_port: 0,
        }
    }

    /// Whether it is that.
    pub const fn is_of_guest(&self) -> bool {
        self.first_port > self.last_port
    }
}
