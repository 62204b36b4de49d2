//! Webhooks, where they are taken: each makes the source look at once, and nothing else.

use std::convert::Infallible;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::{debug, error, info};

use super::{Source, SourceError};
use crate::config;
use crate::daemon::webhook::{self, WAITING};
use crate::github::webhook::{Ear, Hint};
use crate::host::secrets::Secrets;

/// How soon it is tried again when the address cannot be listened on.
const AGAIN: Duration = Duration::from_secs(30);

/// Who hears deliveries, where they are taken.
pub(super) fn ear(github: &config::GitHub, secrets: &Secrets) -> Result<Option<Ear>, SourceError> {
    let Some(webhook) = &github.webhook else {
        return Ok(None);
    };
    let repos = super::reload::named(&github.serves);
    let secret = secrets.of(&webhook.secret)?;
    let secret = crate::github::secret::Secret::new(secret.expose().trim());
    Ok(Some(Ear::new(&secret, repos)?))
}

impl Source {
    /// Takes webhooks, where they are taken. Jobs are found without them, so that nothing ends when they cannot be. Never
    /// returns.
    pub(super) async fn listen(&self) -> Infallible {
        let taken = self.ear.lock().await.take();
        let config = self.config();
        let (Some(ear), Some(webhook)) = (taken, &config.webhook) else {
            return std::future::pending().await;
        };
        let listener = loop {
            match TcpListener::bind(webhook.listen).await {
                Ok(listener) => break listener,
                Err(error) => {
                    error!(address = %webhook.listen, %error, "cannot take webhooks; GitHub is asked as often as without");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        info!(address = %webhook.listen, "taking webhooks");
        let (hints, mut heard) = mpsc::channel::<Hint>(WAITING);
        let pass_on = async {
            while let Some(hint) = heard.recv().await {
                debug!(repo = %hint.repo, "GitHub says that something has changed");
                self.wake();
            }
            std::future::pending().await
        };
        tokio::select! {
            never = webhook::serve(listener, ear, hints) => never,
            never = pass_on => never,
        }
    }
}
