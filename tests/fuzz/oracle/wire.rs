//! What must hold of any bytes that a dispatcher sends: the warden stops listening, or understands requests, of which it
//! answers none that names an account that no job runs as.

use ephemerd::job::Acquisition;
use ephemerd::slot::Account;
use ephemerd::warden::Request;
use ephemerd::warden::bounds::Bounds;
use ephemerd::warden::wire::{bytes, requests};

/// The uids of the two slots.
const SLOTS: [u32; 2] = [451, 452];

/// Sends the bytes.
///
/// # Panics
/// It does not hold.
pub(crate) fn holds(sent: &[u8]) {
    let bounds = bounds();
    for request in requests(sent).expect("there is a socket") {
        // What was understood says the same when it is said again.
        let again = bytes(request.clone()).expect("what was understood is short enough");
        assert_eq!(
            requests(&again).expect("there is a socket"),
            std::slice::from_ref(&request)
        );
        if bounds.check(&request).is_ok() {
            for uid in named(&request) {
                assert!(SLOTS.contains(&uid), "{request:?}");
            }
        }
    }
}

/// A family that this host does not have.
fn bounds() -> Bounds {
    let slot = |index: u32, uid| Account {
        name: format!("_epht-nobody{index}"),
        uid,
        gid: 450,
    };
    Bounds {
        family: "_epht-nobody".to_owned(),
        accounts: vec![slot(1, SLOTS[0]), slot(2, SLOTS[1])],
        patron: None,
        homebrew: ("/nowhere/usual".into(), None),
        own: vec![],
        granted: vec![],
    }
}

/// The users that a request would have something done as, or to.
fn named(request: &Request) -> Vec<u32> {
    let account =
        |account: &Option<Account>| -> Vec<u32> { account.iter().map(|account| account.uid).collect() };
    match request {
        Request::Prepare { account: of, .. } => account(of),
        Request::Scrub {
            account: of,
            acquisitions,
            ..
        } => {
            let held = acquisitions.iter().filter_map(|held| match held {
                Acquisition::Processes { uid, exclusive: true } => Some(*uid),
                Acquisition::UserDomain { account } => Some(account.uid),
                _ => None,
            });
            account(of).into_iter().chain(held).collect()
        }
        Request::Launch(plan) => account(&plan.account),
        Request::Usage { uid, .. } => uid.iter().copied().collect(),
        Request::Canary { slots, .. } => slots.iter().map(|slot| slot.account.uid).collect(),
        Request::Entrance { account, .. } => vec![account.uid],
        _ => vec![],
    }
}
