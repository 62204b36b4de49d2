//! Answers that GitHub need not send again: it says 304 for them, which is not taken from the limit.
//!
//! An ETag is worth something only with the token it was given for: the same list has another one for every token. An
//! entry is of one address and one token, and is gone when another token asks.

use std::collections::BTreeMap;

use bytes::Bytes;

/// The most answers that are kept: three lists for each of some hundred repositories.
const ENTRIES: usize = 1024;

/// The most bytes of bodies that are kept.
const BYTES: usize = 16 * 1024 * 1024;

/// An answer that may still be true.
#[derive(Debug, Clone)]
pub(super) struct Cached {
    pub(super) etag: String,
    pub(super) body: Bytes,
    /// The next page; a 304 does not say it again.
    pub(super) next: Option<String>,
}

#[derive(Debug)]
struct Entry {
    /// The serial number of the token it was given to.
    token: u64,
    used: u64,
    cached: Cached,
}

/// The answers, by address.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: BTreeMap<String, Entry>,
    bytes: usize,
    uses: u64,
}

impl Cache {
    /// The answer that a token was given before. One that another token was given is dropped.
    pub(super) fn get(&mut self, url: &str, token: u64) -> Option<Cached> {
        self.uses += 1;
        match self.entries.get_mut(url) {
            Some(entry) if entry.token == token => {
                entry.used = self.uses;
                Some(entry.cached.clone())
            }
            Some(_) => {
                self.remove(url);
                None
            }
            None => None,
        }
    }

    /// Keeps an answer; those that were not used for the longest time make room.
    pub(super) fn put(&mut self, url: &str, token: u64, cached: Cached) {
        self.remove(url);
        self.uses += 1;
        self.bytes += cached.body.len();
        let entry = Entry {
            token,
            used: self.uses,
            cached,
        };
        self.entries.insert(url.to_owned(), entry);
        while self.entries.len() > ENTRIES || self.bytes > BYTES {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(url, _)| url.clone()) else {
                return;
            };
            self.remove(&oldest);
        }
    }

    /// Forgets an answer.
    pub(super) fn remove(&mut self, url: &str) {
        if let Some(entry) = self.entries.remove(url) {
            self.bytes -= entry.cached.body.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(bytes: usize) -> Cached {
        Cached {
            etag: "W/\"1\"".into(),
            body: vec![b' '; bytes].into(),
            next: None,
        }
    }

    #[test]
    fn an_answer_is_of_one_token() {
        let mut cache = Cache::default();
        cache.put("/runs", 1, cached(10));
        assert!(cache.get("/runs", 1).is_some());
        assert!(cache.get("/runs", 2).is_none());
        assert!(cache.get("/runs", 1).is_none(), "it is dropped, not hidden");
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn it_is_bounded_and_what_is_used_stays() {
        let mut cache = Cache::default();
        for number in 0..ENTRIES + 50 {
            cache.put(&format!("/{number}"), 1, cached(1));
            assert!(cache.get("/0", 1).is_some());
        }
        assert_eq!((cache.entries.len(), cache.bytes), (ENTRIES, ENTRIES));
        assert!(cache.get("/1", 1).is_none());
        cache.put("/large", 1, cached(BYTES));
        assert_eq!((cache.entries.len(), cache.bytes), (1, BYTES));
        cache.put("/larger", 1, cached(BYTES + 1));
        assert_eq!(
            (cache.entries.len(), cache.bytes),
            (0, 0),
            "what does not fit is not kept"
        );
        cache.put("/same", 1, cached(5));
        cache.put("/same", 1, cached(7));
        assert_eq!(cache.bytes, 7);
    }
}
