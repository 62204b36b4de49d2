//! Tokens and what they may do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::{Value, json};

use super::{LABELS, hub};
use crate::hub::Hub;
use crate::hub::auth::{APP_ID, CLIENT_ID, app_jwt, app_key_pem};
use crate::hub::client::{Answer, Caller, request};

fn now_s() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

fn mint(hub: &Hub, jwt: &str, body: &Value) -> Answer {
    Caller::new(hub, jwt).post("/app/installations/9/access_tokens", body)
}

fn good_jwt() -> String {
    app_jwt(CLIENT_ID, now_s() - 60, now_s() + 540)
}

#[test]
fn the_app_gets_a_token_that_is_no_wider_than_asked() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.push("o/other", &LABELS);
    let asked = json!({"repositories": ["r"], "permissions": {"actions": "read"}});
    let minted = mint(&hub, &good_jwt(), &asked);
    assert_eq!(minted.status, 201);
    assert_eq!(
        minted.json()["permissions"],
        json!({"actions": "read", "metadata": "read"})
    );
    let caller = Caller::new(&hub, minted.json()["token"].as_str().unwrap());
    assert_eq!(caller.get("/repos/o/r/actions/runs").status, 200);
    assert_eq!(caller.get("/repos/o/other/actions/runs").status, 404);
    let refused = caller.get("/repos/o/r/actions/runners");
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.json()["message"],
        "Resource not accessible by integration"
    );
    assert_eq!(
        refused.header("x-accepted-github-permissions"),
        "administration=read"
    );
}

#[test]
fn the_app_gets_no_more_than_its_installation_has() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.push("o/other", &LABELS);
    hub.installation("actions:read", Some(&["o/r"]));
    assert_eq!(
        mint(&hub, &good_jwt(), &json!({"permissions": {"actions": "write"}})).status,
        422
    );
    assert_eq!(
        mint(&hub, &good_jwt(), &json!({"repositories": ["other"]})).status,
        422
    );
    assert_eq!(
        mint(&hub, &good_jwt(), &Value::Null).json()["repository_selection"],
        "selected"
    );
    let unknown = Caller::new(&hub, &good_jwt()).post("/app/installations/10/access_tokens", &Value::Null);
    assert_eq!(unknown.status, 404);
}

#[test]
fn refuses_tokens_of_the_app_whose_times_or_signature_are_wrong() {
    let hub = Hub::start();
    let refused = |jwt: &str| {
        let answer = mint(&hub, jwt, &Value::Null);
        assert_eq!(answer.status, 401);
        answer.json()["message"].as_str().unwrap().to_owned()
    };
    assert!(refused(&app_jwt(CLIENT_ID, now_s() + 120, now_s() + 300)).starts_with("'Issued at'"));
    assert!(refused(&app_jwt(CLIENT_ID, now_s() - 60, now_s() + 1_200)).ends_with("too far in the future"));
    assert!(refused(&app_jwt(CLIENT_ID, now_s() - 600, now_s() - 1)).contains("('exp') must be"));
    assert_eq!(
        refused(&app_jwt("somebody", now_s() - 60, now_s() + 60)),
        "Integration not found"
    );
    let jwt = good_jwt();
    let (signed, _) = jwt.rsplit_once('.').unwrap();
    assert_eq!(
        refused(&format!("{signed}.AAAA")),
        "A JSON web token could not be decoded"
    );
    assert_eq!(
        mint(
            &hub,
            &app_jwt(&APP_ID.to_string(), now_s() - 60, now_s() + 540),
            &Value::Null
        )
        .status,
        201
    );
    assert!(app_key_pem().starts_with("-----BEGIN PRIVATE KEY-----\nMII"));
}

#[test]
fn the_clock_of_the_hub_decides_and_shows() {
    let hub = Hub::start();
    hub.set_clock_ahead_s(-600);
    let early = mint(&hub, &good_jwt(), &Value::Null);
    assert_eq!(early.status, 401, "issued 9 minutes in its future");
    let date = early.header("date").to_owned();
    hub.set_clock_ahead_s(600);
    let late = mint(&hub, &good_jwt(), &Value::Null);
    assert_eq!(late.status, 401, "expired a minute ago");
    assert_ne!(late.header("date"), date);
}

#[test]
fn a_revoked_token_is_a_bad_credential() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    assert_eq!(caller.get("/repos/o/r/actions/runs").status, 200);
    hub.revoke_tokens();
    let refused = caller.get("/repos/o/r/actions/runs");
    assert_eq!(
        (refused.status, &refused.json()["message"]),
        (401, &json!("Bad credentials"))
    );
    assert_eq!(
        Caller::new(&hub, "").get("/repos/o/r/actions/runs").json()["message"],
        "Requires authentication"
    );
}

#[test]
fn a_personal_token_lacks_what_it_was_not_given() {
    let hub = Hub::start();
    let run = hub.push("o/r", &LABELS);
    let caller = Caller::new(&hub, &hub.personal_token("actions:read", Some(&["o/r"])));
    assert_eq!(caller.get("/repos/o/r/actions/runs").status, 200);
    for (method, path) in [
        ("POST", format!("/repos/o/r/actions/runs/{run}/cancel")),
        ("POST", "/repos/o/r/actions/runners/registration-token".into()),
        ("GET", "/repos/o/r/pulls/1".into()),
        (
            "GET",
            "/repos/o/r/actions/permissions/fork-pr-contributor-approval".into(),
        ),
        ("GET", "/orgs/o/actions/runner-groups".into()),
        ("DELETE", "/orgs/o/actions/runners/1".into()),
    ] {
        let refused = caller.send(method, &path, &[], &Value::Null).unwrap();
        assert_eq!(refused.status, 403, "{method} {path}");
        assert_eq!(
            refused.json()["message"],
            "Resource not accessible by personal access token"
        );
    }
}

#[test]
fn demands_the_headers_that_every_request_must_have() {
    let (hub, _) = hub();
    let url = format!("{}/meta", hub.url());
    let all = [
        ("user-agent", "x"),
        ("accept", "application/vnd.github+json"),
        ("x-github-api-version", "2022-11-28"),
    ];
    for (missing, status) in [(0, 403), (1, 415), (2, 400)] {
        let headers: Vec<_> = all
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != missing)
            .map(|it| *it.1)
            .collect();
        assert_eq!(request("GET", &url, &headers, &[]).unwrap().status, status);
    }
    assert_eq!(hub.take_violations().len(), 3);
}

#[test]
fn knows_every_secret_it_gave_out() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    let (_, jit) = caller.runner("o/r", "a", &LABELS);
    let token = mint(&hub, &good_jwt(), &Value::Null).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let secrets = hub.secrets();
    assert!(secrets.contains(&jit) && secrets.contains(&token));
}
