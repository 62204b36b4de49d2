use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "planted-secret";

fn ear() -> Ear {
    let repos = ["acme/app".parse().unwrap(), "acme/lib".parse().unwrap()];
    Ear::new(&Secret::new(SECRET), repos.into()).unwrap()
}

fn signed(body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let digits: String = hmac::sign(&key, body)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={digits}")
}

fn head<'a>(signature: &'a str) -> Head<'a> {
    Head {
        method: "POST",
        path: PATH,
        content_type: Some("application/json"),
        length: None,
        event: Some("workflow_job"),
        delivery: Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        signature: Some(signature),
    }
}

fn job(repo: &str, action: &str) -> Vec<u8> {
    json!({"action": action, "workflow_job": {"id": 29, "run_id": 77}, "repository": {"id": 1, "full_name": repo}})
        .to_string()
        .into_bytes()
}

/// What an ear that has heard nothing makes of this.
fn heard(body: &[u8], change: impl for<'a> Fn(&mut Head<'a>)) -> Result<Heard, Refusal> {
    let signature = signed(body);
    let mut head = head(&signature);
    change(&mut head);
    ear().hear(&head, body)
}

fn hint(repo: &str) -> Heard {
    let repo = repo.parse().unwrap();
    Heard::Hint(Hint { repo })
}

#[test]
fn a_signed_delivery_about_a_job_is_a_hint_to_look_at_its_repository() {
    for action in ["queued", "in_progress", "completed", "something_new"] {
        assert_eq!(
            heard(&job("acme/app", action), |_| ()),
            Ok(hint("acme/app")),
            "{action}"
        );
    }
    let Ok(Heard::Hint(found)) = heard(&job("Acme/LIB", "queued"), |_| ()) else {
        panic!("names are compared as github compares them");
    };
    assert_eq!(found.repo.as_str(), "acme/lib", "as the configuration writes it");
    let with_charset = |head: &mut Head<'_>| head.content_type = Some("Application/JSON; charset=utf-8");
    assert_eq!(
        heard(&job("acme/app", "queued"), with_charset),
        Ok(hint("acme/app"))
    );
}

#[test]
fn whose_deliveries_are_hints_may_change() {
    let mut ear = ear();
    ear.repos().set(["acme/new".parse().unwrap()].into());
    let mut said = |repo: &str, delivery: &str| {
        let body = job(repo, "queued");
        let signature = signed(&body);
        let mut head = head(&signature);
        head.delivery = Some(delivery);
        ear.hear(&head, &body)
    };
    assert_eq!(said("acme/new", "a"), Ok(hint("acme/new")));
    assert_eq!(said("acme/app", "b"), Ok(Heard::Ignored(Ignored::Repository)));
}

#[test]
fn what_does_not_matter_is_ignored() {
    use Ignored::{Event, Ping, Repository, Waiting};
    let ignored = |why| Ok(Heard::Ignored(why));
    assert_eq!(heard(&job("eve/app", "queued"), |_| ()), ignored(Repository));
    assert_eq!(heard(&job("acme/app", "waiting"), |_| ()), ignored(Waiting));
    assert_eq!(
        heard(br#"{"zen": "x"}"#, |head| head.event = Some("ping")),
        ignored(Ping)
    );
    for event in ["push", "workflow_run", "WORKFLOW_JOB"] {
        assert_eq!(
            heard(b"not even json", |head| head.event = Some(event)),
            ignored(Event),
            "{event}"
        );
    }
}

#[test]
fn what_is_no_delivery_is_refused_before_its_body_is_read() {
    let body = job("acme/app", "queued");
    let refused = |change: &dyn for<'a> Fn(&mut Head<'a>)| {
        let signature = signed(&body);
        let mut head = head(&signature);
        change(&mut head);
        let early = head.check();
        assert_eq!(ear().hear(&head, &body).map(drop), early, "{head:?}");
        early.unwrap_err()
    };
    assert_eq!(refused(&|head| head.path = "/"), Refusal::Path);
    assert_eq!(refused(&|head| head.path = "/webhook/"), Refusal::Path);
    for method in ["GET", "PUT", "HEAD", "post", ""] {
        assert_eq!(refused(&|head| head.method = method), Refusal::Method, "{method}");
    }
    for kind in [
        None,
        Some(""),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain; application/json"),
    ] {
        assert_eq!(
            refused(&|head| head.content_type = kind),
            Refusal::ContentType,
            "{kind:?}"
        );
    }
    assert_eq!(
        refused(&|head| head.length = Some(LONGEST as u64 + 1)),
        Refusal::TooLarge
    );
    for name in [None, Some(""), Some("a b"), Some("\u{e9}")] {
        assert_eq!(refused(&|head| head.event = name), Refusal::Headers, "{name:?}");
        assert_eq!(
            refused(&|head| head.delivery = name),
            Refusal::Headers,
            "{name:?}"
        );
    }
    assert_eq!(refused(&|head| head.signature = None), Refusal::Unsigned);
}

#[test]
fn nothing_counts_without_the_right_signature_not_even_a_ping() {
    let body = job("acme/app", "queued");
    let other = signed(b"another body");
    for event in ["workflow_job", "ping", "push"] {
        for signature in [other.as_str(), "", "sha1=da39a3ee", "sha256="] {
            let mut head = head(signature);
            head.event = Some(event);
            assert_eq!(
                ear().hear(&head, &body),
                Err(Refusal::Signature),
                "{event} {signature}"
            );
        }
    }
    // Garbage is not even parsed: a wrong signature is told first.
    assert_eq!(ear().hear(&head(&other), b"{"), Err(Refusal::Signature));
}

#[test]
fn signed_garbage_and_what_is_too_large_are_refused() {
    for body in [
        "",
        "{",
        "null",
        "[]",
        r#"{"action": "queued"}"#,
        r#"{"action": 1, "repository": {"full_name": "acme/app"}}"#,
    ] {
        assert_eq!(heard(body.as_bytes(), |_| ()), Err(Refusal::Body), "{body}");
    }
    assert_eq!(heard(&job("../..", "queued"), |_| ()), Err(Refusal::Body));
    let mut large = job("acme/app", "queued");
    large.resize(LONGEST, b' ');
    assert_eq!(heard(&large, |_| ()), Ok(hint("acme/app")));
    large.push(b' ');
    assert_eq!(heard(&large, |_| ()), Err(Refusal::TooLarge));
}

#[test]
fn a_delivery_counts_once_and_what_was_refused_does_not_count_as_heard() {
    let mut ear = ear();
    let (body, second) = (job("acme/app", "queued"), job("acme/app", "completed"));
    let (signature, wrong) = (signed(&body), signed(b"another body"));
    assert_eq!(ear.hear(&head(&wrong), &body), Err(Refusal::Signature));
    assert_eq!(ear.hear(&head(&signature), &body), Ok(hint("acme/app")));
    let again = Ok(Heard::Ignored(Ignored::Again));
    assert_eq!(ear.hear(&head(&signature), &body), again);
    // With an id of its own, which is not signed.
    let mut renamed = head(&signature);
    renamed.delivery = Some("other");
    assert_eq!(ear.hear(&renamed, &body), again);
    let signature = signed(&second);
    renamed.signature = Some(&signature);
    assert_eq!(ear.hear(&renamed, &second), Ok(hint("acme/app")));
}

#[test]
fn without_a_secret_there_is_no_ear() {
    let none = Ear::new(&Secret::new(""), BTreeSet::new()).map(drop).unwrap_err();
    assert!(none.to_string().contains("\nhint: "), "{none}");
    assert!(!format!("{:?}", ear()).contains(SECRET));
}

proptest! {
    /// Whatever is sent, a hint comes of a right signature and a known repository only.
    #[test]
    fn no_hint_without_signature_and_repository(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100),
            "[a-z]{1,5}/[a-z]{1,5}".prop_map(|repo| job(&repo, "queued")),
            Just(job("acme/app", "queued")),
        ],
        is_signed: bool,
        signature in ".*",
    ) {
        let signature = if is_signed { signed(&body) } else { signature };
        if let Ok(Heard::Hint(hint)) = ear().hear(&head(&signature), &body) {
            prop_assert!(is_signed);
            let payload: Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(payload["repository"]["full_name"].as_str().unwrap(), hint.repo.as_str());
        }
    }
}
