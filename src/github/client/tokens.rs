//! The tokens that the App was given, each asked for when it is first needed and once only, however many need it at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::grant::Grant;
use crate::github::secret::Secret;

/// How long before its end a token is no longer used: longer than anything takes that was begun with it.
pub(super) const MARGIN: Duration = Duration::from_secs(5 * 60);

/// A token, and which one it is.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) secret: Secret,
    /// No two tokens have the same.
    pub(super) serial: u64,
    /// Until when it is used.
    pub(super) good_until: Instant,
}

/// What was given for one grant. The lock is held while a token is asked for.
#[derive(Debug, Default)]
struct Slot {
    /// How often asking has failed.
    failures: AtomicU64,
    held: tokio::sync::Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    token: Option<Token>,
    error: Option<ClientError>,
}

/// All tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    slots: Mutex<BTreeMap<Grant, Arc<Slot>>>,
    serial: AtomicU64,
}

impl Tokens {
    fn slot(&self, grant: &Grant) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(grant.clone()).or_default())
    }

    /// A number that no token has had.
    pub(super) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The token for a grant. Whoever waited while somebody else asked in vain fails with them: asking again for
    /// everybody who waits would be a burst of requests that fail, one after the other.
    pub(super) async fn get<F>(&self, grant: &Grant, mint: impl FnOnce() -> F) -> Result<Token, ClientError>
    where
        F: Future<Output = Result<Token, ClientError>>,
    {
        let slot = self.slot(grant);
        let failures = slot.failures.load(Ordering::SeqCst);
        let mut held = slot.held.lock().await;
        if let Some(token) = held.token.as_ref().filter(|it| it.good_until > Instant::now()) {
            return Ok(token.clone());
        }
        if slot.failures.load(Ordering::SeqCst) != failures
            && let Some(error) = &held.error
        {
            return Err(error.clone());
        }
        match mint().await {
            Ok(token) => {
                *held = Held {
                    token: Some(token.clone()),
                    error: None,
                };
                Ok(token)
            }
            Err(error) => {
                *held = Held {
                    token: None,
                    error: Some(error.clone()),
                };
                slot.failures.fetch_add(1, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Forgets a token that GitHub did not take, unless there is a newer one already.
    pub(super) async fn forget(&self, grant: &Grant, serial: u64) {
        let slot = self.slot(grant);
        let mut held = slot.held.lock().await;
        if held.token.as_ref().is_some_and(|it| it.serial == serial) {
            held.token = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::client::grant::Purpose;
    use std::cell::Cell;

    const GRANT: Grant = Grant::Installation(Purpose::Metadata);

    fn token(tokens: &Tokens, good_for: Duration) -> Token {
        Token {
            secret: Secret::new("x"),
            serial: tokens.next_serial(),
            good_until: Instant::now() + good_for,
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    /// Twenty who ask at once; gives how often a token was asked for, and how many got one.
    async fn burst(tokens: &Tokens, outcome: impl Fn() -> Result<Token, ClientError>) -> (u32, usize) {
        let minted = Cell::new(0);
        let mut asking = Vec::new();
        for _ in 0..20 {
            asking.push(Box::pin(tokens.get(&GRANT, async || {
                minted.set(minted.get() + 1);
                tokio::task::yield_now().await;
                outcome()
            })));
        }
        let mut got = 0;
        // Polled in turn, so that all of them are under way together.
        std::future::poll_fn(|context| {
            asking.retain_mut(|one| match one.as_mut().poll(context) {
                std::task::Poll::Ready(answer) => {
                    got += usize::from(answer.is_ok());
                    false
                }
                std::task::Poll::Pending => true,
            });
            if asking.is_empty() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        (minted.get(), got)
    }

    #[test]
    fn a_burst_asks_once() {
        let tokens = Tokens::default();
        let fresh = || Ok(token(&tokens, Duration::from_secs(60)));
        assert_eq!(run(burst(&tokens, fresh)), (1, 20));
        assert_eq!(run(burst(&tokens, fresh)), (0, 20));
    }

    #[test]
    fn a_burst_fails_once_and_the_next_one_asks_again() {
        let tokens = Tokens::default();
        let fails = || {
            Err(ClientError::Server {
                asked: "POST /x".into(),
                status: 502,
            })
        };
        assert_eq!(run(burst(&tokens, fails)), (1, 0));
        assert_eq!(run(burst(&tokens, fails)), (1, 0));
        assert_eq!(run(burst(&tokens, || Ok(token(&tokens, MARGIN)))), (1, 20));
    }

    #[test]
    fn one_that_is_over_or_was_refused_is_not_used_again() {
        let tokens = Tokens::default();
        run(async {
            let get = async |good_for| {
                tokens
                    .get(&GRANT, async || Ok(token(&tokens, good_for)))
                    .await
                    .unwrap()
            };
            let over = get(Duration::ZERO).await;
            let fresh = get(MARGIN).await;
            assert_ne!(over.serial, fresh.serial);
            // It was refused to somebody who asked with the one before.
            tokens.forget(&GRANT, over.serial).await;
            assert_eq!(get(MARGIN).await.serial, fresh.serial);
            tokens.forget(&GRANT, fresh.serial).await;
            assert_ne!(get(MARGIN).await.serial, fresh.serial);
        });
    }
}
