//! Our client against the hub: it asks as GitHub wants to be asked, and believes nothing that GitHub did not say.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod answers;
mod faults;
mod limits;
mod questions;
mod secrets;

use std::future::Future;

use ephemerd::github::client::{Client, Credentials, DEADLINE, Options};
use ephemerd::github::secret::Secret;
use ephemerd::job::Repo;

use crate::hub::Hub;
use crate::hub::auth::{CLIENT_ID, app_key_pem};

/// Runs to the end what a test does.
fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(test)
}

/// The repository of most tests.
fn repo() -> Repo {
    "o/r".parse().unwrap()
}

fn options(hub: &Hub, credentials: Credentials) -> Options {
    Options {
        url: hub.url(),
        credentials,
        deadline: DEADLINE,
    }
}

/// The App's credentials in installation 9.
fn app(app: &str) -> Credentials {
    Credentials::App {
        app: app.to_owned(),
        installation: 9,
        private_key: Secret::from(app_key_pem()),
    }
}

fn client(hub: &Hub, credentials: Credentials) -> Client {
    Client::new(options(hub, credentials)).unwrap()
}

/// A client of the App.
fn of_app(hub: &Hub) -> Client {
    client(hub, app(CLIENT_ID))
}

/// A client with a personal token that may do everything.
fn of_person(hub: &Hub) -> Client {
    client(hub, Credentials::Token(Secret::from(hub.any_token())))
}

/// Method, path and status of every request.
fn asked(hub: &Hub) -> Vec<String> {
    let requests = hub.requests();
    requests
        .iter()
        .map(|it| format!("{} {} {}", it.method, it.path, it.status))
        .collect()
}

/// How often a token was asked for.
fn mints(hub: &Hub) -> usize {
    let requests = hub.requests();
    requests
        .iter()
        .filter(|it| it.path.ends_with("/access_tokens"))
        .count()
}
