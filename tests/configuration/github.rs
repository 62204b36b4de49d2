//! `[github]`.

use ephemerd::config::Acquire;

use super::{right, wrong};

#[test]
fn what_github_says_is_read() {
    let app = "[github]\norg = \"acme\"\nrepos = [\"acme/ios\"]\nlabels = [\"self-hosted\", \"eph-native\"]\napp_id = 1\n\
        installation_id = 2\nprivate_key = \"/etc/ephemerd/app.pem\"\napi = \"https://ghe.acme.example/api/v3/\"\n\
        runner_version = \"2.336.0\"\nrunner_sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n";
    insta::assert_snapshot!(serde_json::to_string(&right(app).config.github).unwrap(), @r#"{"api":"https://ghe.acme.example/api/v3","serves":{"org":{"org":"acme","repos":["acme/ios"]}},"runner_group":"Default","labels":["self-hosted","eph-native"],"identity":{"app":{"app_id":1,"installation_id":2,"private_key":"/etc/ephemerd/app.pem"}},"acquire":"poll","poll":{"secs":10,"nanos":0},"idle_poll":{"secs":30,"nanos":0},"idle_timeout":{"secs":300,"nanos":0},"stop_grace":{"secs":30,"nanos":0},"runner":["2.336.0","0000000000000000000000000000000000000000000000000000000000000000"],"runner_releases":"https://github.com/actions/runner/releases/download","webhook":null}"#);
    let token = "[github]\nrepos = [\"acme/ios\", \"Acme/iOS\"]\nlabels = [\"eph\"]\ntoken_file = \"/etc/ephemerd/token\"\n";
    insta::assert_snapshot!(serde_json::to_string(&right(token).config.github).unwrap(), @r#"{"api":"https://api.github.com","serves":{"repos":["Acme/iOS"]},"runner_group":"Default","labels":["eph"],"identity":{"token":{"file":"/etc/ephemerd/token"}},"acquire":"poll","poll":{"secs":10,"nanos":0},"idle_poll":{"secs":30,"nanos":0},"idle_timeout":{"secs":300,"nanos":0},"stop_grace":{"secs":30,"nanos":0},"runner":null,"runner_releases":"https://github.com/actions/runner/releases/download","webhook":null}"#);
}

#[test]
fn jobs_of_github_are_asked_for_unless_a_scale_set_is_offered_them() {
    let with = |more: &str| {
        format!("[github]\nrepos = [\"acme/ios\"]\nlabels = [\"eph\"]\ntoken_file = \"/etc/t\"\n{more}")
    };
    let acquire = |more: &str| right(&with(more)).config.github.unwrap().acquire;
    assert_eq!(acquire(""), Acquire::Poll);
    assert_eq!(acquire("acquire = \"scale-set\"\n"), Acquire::ScaleSet);
    insta::assert_snapshot!(wrong(&with("acquire = \"push\"\n")), @r"
    the configuration has an error
    e.toml:5:11: `github.acquire`: `push` is not a known value
    hint: use one of `poll`, `scale-set`
    ");
}

#[test]
fn no_job_reaches_what_takes_webhooks() {
    let text = "[github]\nrepos = [\"acme/ios\"]\nlabels = [\"eph\"]\ntoken_file = \"/etc/t\"\n\
        webhook_listen = \"127.0.0.1:9124\"\nwebhook_secret = \"/etc/s\"\n";
    assert!(right(text).config.egress.protect_local_ports.contains(&9124));
}

#[test]
fn every_mistake_in_github_is_told_with_a_remedy() {
    let with = |more: &str| wrong(&format!("[github]\ntoken_file = \"/etc/t\"\n{more}"));
    let served = |more: &str| with(&format!("repos = [\"acme/ios\"]\nlabels = [\"eph\"]\n{more}"));
    let told = [
        wrong("[github]\nrepos = [\"acme/ios\"]\nlabels = [\"eph\"]\n"),
        wrong("[github]\nlabels = [\"eph\"]\n"),
        with("repos = [\"acme/ios\"]\n"),
        with("repos = [\"acme\"]\nlabels = [\"eph\"]\n"),
        with("repos = [\"acme/ios\"]\nlabels = [\"Self-Hosted\", \"linux\"]\n"),
        with("repos = [\"acme/ios\"]\nlabels = [\"eph\", \"EPH\"]\n"),
        with("repos = [\"acme/ios\"]\nlabels = [\"a,b\"]\n"),
        with("org = \"other\"\nrepos = [\"acme/ios\"]\nlabels = [\"eph\"]\n"),
        with("org = \"a/b\"\nlabels = [\"eph\"]\n"),
        served("app_id = 1\n"),
        served("runner_version = \"2.336.0\"\n"),
        served("runner_version = \"newest\"\n"),
        served("api = \"http://ghe.acme.example/api/v3\"\n"),
        served("api = \"https://user:secret@ghe.acme.example\"\n"),
        served("api = \"ftp://x\"\n"),
        served("runner_releases = \"/srv/runners\"\n"),
        served("webhook_listen = \"127.0.0.1:9124\"\n"),
        served("webhook_listen = \"localhost\"\nwebhook_secret = \"/etc/s\"\n"),
        with(
            "org = \"acme\"\nlabels = [\"eph\"]\nwebhook_listen = \"127.0.0.1:9124\"\nwebhook_secret = \"/etc/s\"\n",
        ),
        with(
            "org = \"acme\"\nrepos = [\"acme/ios\", \"acme/web\"]\nlabels = [\"eph\"]\n[repos.\"acme/ios\"]\nposture = \"strict\"\n",
        ),
    ];
    insta::assert_snapshot!(told.join("\n\n"), @r#"
    the configuration has an error
    e.toml:2:9: GitHub must know who asks
    hint: set `github.app_id`, `github.installation_id` and `github.private_key`, or `github.token_file` alone

    the configuration has an error
    e.toml:2:10: `github.labels` is set, and no repository or organisation is named
    hint: name them in `github.repos` or `github.org`

    the configuration has an error
    e.toml:3:9: `github.labels` names no label of our runners
    hint: give it one of its own, ["self-hosted", "linux", "eph-native"]

    the configuration has an error
    e.toml:3:10: `github.repos`: `acme` is not a repository
    hint: write it as OWNER/NAME, letters, digits, `.`, `_` and `-` only

    the configuration has an error
    e.toml:4:10: `github.labels` names only labels that runners of others have too, so ours would take their jobs
    hint: give it one of its own, ["self-hosted", "linux", "eph-native"]

    the configuration has an error
    e.toml:4:10: `github.labels` names a label twice, and case does not count
    hint: give it one of its own, ["self-hosted", "linux", "eph-native"]

    the configuration has an error
    e.toml:4:11: `github.labels`: `a,b` is no label of a runner
    hint: 1 to 256 characters, without commas and blanks at its ends

    the configuration has an error
    e.toml:4:9: `acme/ios` is not of `other`, whose runners these are
    hint: take it out, or leave `github.org` out: then every repository has runners of its own

    the configuration has an error
    e.toml:3:7: `github.org`: `a/b` is no name of an organisation
    hint: letters, digits and `-`, as in its address on GitHub

    the configuration has an error
    e.toml:5:10: GitHub must know who asks
    hint: set `github.app_id`, `github.installation_id` and `github.private_key`, or `github.token_file` alone

    the configuration has an error
    e.toml:5:18: `github.runner_version` and `github.runner_sha256` go together
    hint: set both, as the notes of the release print them, or neither

    the configuration has an error
    e.toml:5:18: `github.runner_version`: `newest` is no version of the runner
    hint: three numbers with dots between: 2.336.0

    the configuration has an error
    e.toml:5:7: `github.api`: `http://ghe.acme.example/api/v3` is no address of an API
    hint: write https: whoever listens on the way would have the credentials

    the configuration has an error
    e.toml:5:7: `github.api`: `https://user:secret@ghe.acme.example` is no address of an API
    hint: write it as https://HOST or https://HOST/PATH

    the configuration has an error
    e.toml:5:7: `github.api`: `ftp://x` is no address of an API
    hint: write "https://api.github.com", or "https://HOST/api/v3"

    the configuration has an error
    e.toml:5:19: `github.runner_releases`: `/srv/runners` is no address of a folder
    hint: write it as https://HOST/PATH or file:///PATH

    the configuration has an error
    e.toml:5:18: `github.webhook_listen` and `github.webhook_secret` go together
    hint: without a secret anybody could send what looks like GitHub's

    the configuration has an error
    e.toml:5:18: `github.webhook_listen`: `localhost` is no address with a port
    hint: for example "127.0.0.1:9124", behind a server that speaks TLS

    the configuration has 2 errors
    e.toml:3:7: a personal token is not told which repositories of `acme` it may see
    hint: name them in `github.repos`, or use an App
    e.toml:5:18: webhooks are taken for repositories that are named
    hint: name them in `github.repos`

    the configuration has an error
    e.toml:3:7: runners of `acme` run jobs of all its repositories in one sandbox, and `[repos]` gives `acme/web` another than the rest
    hint: name the repositories in `github.repos` and leave `github.org` out: then each has runners of its own
    "#);
}
