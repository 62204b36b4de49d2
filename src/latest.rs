//! A value that is replaced as a whole: who has taken it goes on with what it was, who asks from then on gets the new one.

use std::sync::Arc;

use tokio::sync::watch;

/// The value.
#[derive(Debug)]
pub struct Latest<T>(watch::Sender<Arc<T>>);

impl<T> Latest<T> {
    /// The first value.
    pub fn new(value: T) -> Self {
        Self(watch::Sender::new(Arc::new(value)))
    }

    /// The value as it is now. Whoever must not notice that it is replaced keeps it.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }

    /// Replaces it, and tells whoever waits for that.
    pub fn set(&self, value: T) {
        self.0.send_replace(Arc::new(value));
    }

    /// Whether `taken` is the value still.
    pub fn is_still(&self, taken: &Arc<T>) -> bool {
        Arc::ptr_eq(&self.0.borrow(), taken)
    }

    /// Notices when it is replaced.
    pub fn changes(&self) -> watch::Receiver<Arc<T>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_taken_a_value_keeps_it_and_can_tell_that_it_was_replaced() {
        let latest = Latest::new(1);
        let (taken, changes) = (latest.get(), latest.changes());
        assert!(latest.is_still(&taken) && !changes.has_changed().unwrap());
        latest.set(2);
        assert_eq!((*taken, *latest.get()), (1, 2));
        assert!(!latest.is_still(&taken) && changes.has_changed().unwrap());
    }
}
