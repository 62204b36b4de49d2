//! No secret is in a log or an error, whatever happens.

use std::error::Error;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use ephemerd::github::api::Scope;
use ephemerd::github::api::runners::NewRunner;
use ephemerd::github::api::runs::RunStatus;
use ephemerd::github::client::{Client, ClientError, Credentials};
use ephemerd::github::secret::Secret;
use serde_json::json;

use super::{app, client, repo, run};
use crate::checks::LABELS;
use crate::hub::Hub;
use crate::hub::auth::{CLIENT_ID, app_key_pem};
use crate::hub::faults::Fault;

/// Everything that is said, in a log or an error.
#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Said {
    /// An error in every way it can be printed, with its causes.
    fn error(&mut self, error: &ClientError) {
        let mut cause: Option<&dyn Error> = Some(error);
        while let Some(error) = cause {
            writeln!(self, "{error}\n{error:?}\n{error:#?}").unwrap();
            cause = error.source();
        }
    }

    fn value(&mut self, value: &impl std::fmt::Debug) {
        writeln!(self, "{value:?}\n{value:#?}").unwrap();
    }
}

/// Every fault that an answer can have; the credential is repeated where somebody might.
fn faults(token: &str) -> Vec<Fault> {
    let echo = json!({"message": format!("bad token {token}"), "errors": [{"message": token}]});
    let echoes = [400, 401, 401, 403, 404, 409, 422].map(|status| Fault::Answer(status, echo.clone()));
    let spoiled = json!({"token": [token], "runner": token, "encoded_jit_config": {"a": token}});
    echoes
        .into_iter()
        .chain([
            Fault::Answer(200, json!(token)),
            Fault::Answer(200, spoiled.clone()),
            Fault::Answer(201, spoiled),
            Fault::Redirect(302, format!("https://elsewhere.example/?token={token}")),
            Fault::Next(format!("https://elsewhere.example/{token}?token={token}")),
            Fault::Next(format!("/repos/o/r/{token}?token={token}")),
            Fault::Html(200),
            Fault::WrongType,
            Fault::Truncated,
            Fault::Huge,
            Fault::Reset,
            Fault::LoseAnswer,
            Fault::SecondaryLimit(0),
            Fault::status(502),
        ])
        .collect()
}

/// Asks everything that has to do with secrets, well and with every fault.
async fn ask(said: &mut Said, hub: &Hub, client: &Client, token: &str) {
    let scope = Scope::Repo(repo());
    let mut faults = faults(token).into_iter().map(Some).collect::<Vec<_>>();
    faults.insert(0, None);
    for (number, fault) in faults.into_iter().enumerate() {
        if let Some(fault) = fault {
            hub.inject("* /repos/*", 2, fault);
        }
        let runner = NewRunner {
            name: format!("mac01-{number}"),
            labels: LABELS.map(str::to_owned).to_vec(),
            group: 1,
        };
        match client.generate_jit(&scope, &runner).await {
            Ok(made) => said.value(&made),
            Err(error) => said.error(&error),
        }
        match client.runs(&repo(), RunStatus::Queued).await {
            Ok(list) => said.value(&list),
            Err(error) => said.error(&error),
        }
        hub.heal();
        said.value(&client.report());
        said.value(client);
    }
}

#[test]
fn no_log_and_no_error_holds_a_secret() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    let mut said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        run(async {
            let personal = hub.any_token();
            let credentials = Credentials::Token(Secret::from(personal.clone()));
            said.value(&credentials);
            ask(&mut said, &hub, &client(&hub, credentials), &personal).await;
            said.value(&app(CLIENT_ID));
            let of_app = client(&hub, app(CLIENT_ID));
            of_app.runs(&repo(), RunStatus::Queued).await.unwrap();
            let given = hub.requests().last().unwrap().token.clone();
            ask(&mut said, &hub, &of_app, &given).await;
            for fault in faults(&given) {
                hub.inject("POST /app/*", 1, fault);
                hub.revoke_tokens();
                if let Err(error) = of_app.runs(&repo(), RunStatus::Queued).await {
                    said.error(&error);
                }
                hub.heal();
            }
        });
    });
    let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    assert!(
        said.contains("GitHub answered") && said.contains("TRACE"),
        "the log is heard"
    );
    let key = app_key_pem();
    let sent: Vec<String> = hub.requests().into_iter().map(|it| it.token).collect();
    let secrets = hub.secrets();
    assert!(secrets.len() > 20 && sent.len() > 50);
    let lines = key.lines().filter(|line| !line.starts_with("-----"));
    for secret in secrets.iter().chain(&sent).map(String::as_str).chain(lines) {
        if let Some(at) = said.find(secret).filter(|_| !secret.is_empty()) {
            let line = said[..at].lines().count();
            let context = said.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            panic!("a secret is said: {}", context.replace(secret, "SECRET"));
        }
    }
    // Broken on purpose.
    hub.take_violations();
}
