//! What a dispatcher leaves with the warden, so that the next one can go on where it was killed: words that only dispatchers
//! read, and descriptors. Nothing of it does anything here.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::serve::Warden;
use super::{Reply, Request};
use crate::job::JobId;

/// Bytes of all memos together. One has about 20 KiB, and the queue rarely a hundred jobs.
const MOST_BYTE: usize = 64 << 20;

/// Descriptors of all memos together: three for each of 64 slots, and again as many for jobs that are just ending.
const MOST_DESCRIPTORS: usize = 384;

/// Words from a dispatcher to the next. They may hold a job's environment, so nobody prints them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memo(pub String);

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memo({} bytes)", self.0.len())
    }
}

/// The memos, by the job that they are about; one is about none.
#[derive(Debug, Default)]
pub(super) struct Kept {
    memos: BTreeMap<Option<JobId>, (Memo, Vec<OwnedFd>)>,
}

impl Kept {
    /// Keeps a memo in the place of an earlier one. Descriptors that came with that stay, where none come with this.
    ///
    /// # Errors
    /// There is no room for it; then there is none of the earlier one either.
    fn put(&mut self, of: Option<JobId>, memo: Memo, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let before = self.memos.remove(&of);
        let others = self.memos.values();
        let (bytes, count) = others.fold((0, 0), |(bytes, count), (memo, descriptors)| {
            (bytes + memo.0.len(), count + descriptors.len())
        });
        if bytes + memo.0.len() > MOST_BYTE || count + descriptors.len() > MOST_DESCRIPTORS {
            return Err("there is no room for another memo".to_owned());
        }
        let descriptors = match before {
            Some((_, earlier)) if descriptors.is_empty() => earlier,
            Some(_) | None => descriptors,
        };
        self.memos.insert(of, (memo, descriptors));
        Ok(())
    }

    /// The jobs that there is a memo of.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.memos.keys().flatten().cloned().collect()
    }

    /// What is kept, where something is.
    fn get(&self, of: &Option<JobId>) -> (Option<Memo>, Vec<BorrowedFd<'_>>) {
        match self.memos.get(of) {
            Some((memo, descriptors)) => {
                let descriptors = descriptors.iter().map(AsFd::as_fd);
                (Some(memo.clone()), descriptors.collect())
            }
            None => (None, vec![]),
        }
    }
}

impl Warden {
    /// Answers what is about memos.
    pub(super) fn answer_kept(
        &mut self,
        number: u64,
        message: Request,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let Some(front) = &mut self.front else {
            let refused = io::Error::other("the dispatcher of a single command has no other after it");
            return self.reply(number, Err::<Reply, _>(refused));
        };
        match message {
            Request::Keep { of, memo } => {
                // Nobody waits for an answer. One without room must not leave an earlier one that says too little.
                if let Err(error) = front.kept.put(of, memo, descriptors) {
                    tracing::warn!(error, "nobody could go on with a job after a crash");
                }
                Ok(())
            }
            Request::Forget { job } => {
                front.kept.memos.remove(&Some(job));
                Ok(())
            }
            Request::Recall { of } => {
                let pid = of.as_ref().and_then(|job| self.jobs.get(job));
                let pid = pid.map(|first| first.pid.as_raw());
                let kept = self.front.as_ref().map(|front| front.kept.get(&of));
                let (memo, descriptors) = kept.unwrap_or_default();
                self.reply_with(number, Reply::Kept { memo, pid }, &descriptors)
            }
            other => {
                let refused = io::Error::other(format!("{other:?} is not about memos"));
                self.reply(number, Err::<Reply, _>(refused))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memo(text: &str) -> Memo {
        Memo(text.to_owned())
    }

    fn job(last: char) -> JobId {
        format!("0a1b2c3d4e{last}").parse().unwrap()
    }

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_memo_takes_the_place_of_the_last_and_descriptors_stay_until_others_come() {
        let mut kept = Kept::default();
        let of = Some(job('1'));
        kept.put(of.clone(), memo("queued"), vec![]).unwrap();
        kept.put(of.clone(), memo("launched"), vec![descriptor(), descriptor()])
            .unwrap();
        kept.put(of.clone(), memo("runs"), vec![]).unwrap();
        let (found, descriptors) = kept.get(&of);
        assert_eq!((found, descriptors.len()), (Some(memo("runs")), 2));
        kept.put(of.clone(), memo("again"), vec![descriptor()]).unwrap();
        assert_eq!(kept.get(&of).1.len(), 1);
        kept.put(None, memo("of all"), vec![]).unwrap();
        assert_eq!(kept.jobs(), [job('1')]);
        assert_eq!(kept.get(&Some(job('2'))).0, None);
    }

    #[test]
    fn there_is_room_for_so_much_and_what_does_not_fit_takes_nothing_elses_place() {
        let mut kept = Kept::default();
        let large = memo(&"x".repeat(MOST_BYTE / 2));
        kept.put(Some(job('1')), large.clone(), vec![]).unwrap();
        kept.put(Some(job('2')), large.clone(), vec![]).unwrap();
        assert!(kept.put(Some(job('3')), memo("x"), vec![]).is_err());
        // In its own place it has room again.
        kept.put(Some(job('2')), memo("x"), vec![]).unwrap();
        kept.put(Some(job('3')), memo("x"), vec![]).unwrap();
        let many: Vec<OwnedFd> = (0..=MOST_DESCRIPTORS).map(|_| descriptor()).collect();
        assert!(kept.put(Some(job('4')), memo("x"), many).is_err());
        assert_eq!(kept.jobs(), [job('1'), job('2'), job('3')]);
    }

    #[test]
    fn nobody_prints_what_is_in_a_memo() {
        let printed = format!(
            "{:?}",
            Request::Keep {
                of: None,
                memo: memo("TOKEN=secret")
            }
        );
        assert!(!printed.contains("secret"), "{printed}");
    }
}
