//! `[github]`: whose runners, who we are, and what goes together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use camino::Utf8PathBuf;

use super::super::grants;
use super::super::keys::KEYS;
use super::super::{GitHub, Identity, RepoConfig, Serves, Webhook};
use super::reader::Reader;
use super::values;
use crate::github::runner::tree::Sha256;
use crate::github::runner::version::RunnerVersion;
use crate::job::Repo;

/// Most labels of a runner (docs.github.com, "Create configuration for a just-in-time runner").
const MAX_LABELS: usize = 100;

/// `Some(None)` when no key says that jobs of GitHub run here.
pub(super) fn github(r: &mut Reader) -> Option<Option<GitHub>> {
    let api = r.must(&["github", "api"], |_, raw| Ok(api(values::text(raw))?));
    let repos = r.must(&["github", "repos"], |_, raw| values::each(raw, repo));
    let org = r.may(&["github", "org"], |_, raw| Ok(org(values::text(raw))?));
    let runner_group = r.must(&["github", "runner_group"], |_, raw| {
        Ok(values::filled(values::text(raw))?)
    });
    let labels = r.must(&["github", "labels"], |_, raw| values::each(raw, label));
    let identity = identity(r);
    let acquire = r.must(&["github", "acquire"], values::choice);
    let poll = r.must(&["github", "poll"], values::duration);
    let idle_poll = r.must(&["github", "idle_poll"], values::duration);
    let idle_timeout = r.must(&["github", "idle_timeout"], values::duration);
    let stop_grace = r.must(&["github", "stop_grace"], values::duration);
    let runner = runner(r);
    let runner_releases = r.must(&["github", "runner_releases"], |_, raw| {
        Ok(releases(values::text(raw))?)
    });
    let webhook = webhook(r);
    let (repos, org, labels) = (repos?, org?, labels?);
    let repos: BTreeSet<Repo> = repos.into_iter().collect();
    let serves = match org {
        Some(org) => {
            refuse_strangers(r, &org, &repos);
            if repos.is_empty() && matches!(identity, Some(Identity::Token { .. })) {
                refuse_unnamed(r, &org);
            }
            Serves::Org { org, repos }
        }
        None if repos.is_empty() => {
            refuse_for_nobody(r);
            return Some(None);
        }
        None => Serves::Repos(repos),
    };
    refuse_bad_labels(r, &labels);
    Some(Some(GitHub {
        api: api?,
        serves,
        runner_group: runner_group?,
        labels,
        identity: identity?,
        acquire: acquire?,
        poll: poll?,
        idle_poll: idle_poll?,
        idle_timeout: idle_timeout?,
        stop_grace: stop_grace?,
        runner: runner?,
        runner_releases: runner_releases?,
        webhook: webhook?,
    }))
}

/// Who we are; `None` also when nobody, which is a problem only where there is something to serve.
fn identity(r: &mut Reader) -> Option<Identity> {
    let app_id = r.may(&["github", "app_id"], values::number);
    let installation_id = r.may(&["github", "installation_id"], values::number);
    let private_key = path(r, "private_key");
    let token_file = path(r, "token_file");
    let app = (app_id?, installation_id?, private_key?);
    match (app, token_file?) {
        ((Some(app_id), Some(installation_id), Some(private_key)), None) => Some(Identity::App {
            app_id,
            installation_id,
            private_key,
        }),
        ((None, None, None), Some(file)) => Some(Identity::Token { file }),
        ((None, None, None), None) if !is_wanted(r) => None,
        _ => {
            let keys = [
                "github.app_id",
                "github.installation_id",
                "github.private_key",
                "github.token_file",
                "github.repos",
                "github.org",
            ];
            r.contradiction(
                &keys,
                "GitHub must know who asks\n\
                 hint: set `github.app_id`, `github.installation_id` and `github.private_key`, or `github.token_file` alone"
                    .to_owned(),
            );
            None
        }
    }
}

fn path(r: &mut Reader, key: &str) -> Option<Option<Utf8PathBuf>> {
    r.may(&["github", key], |_, raw| {
        Ok(grants::absolute(values::text(raw))?)
    })
}

/// Whether the file names somebody whose jobs run here.
fn is_wanted(r: &Reader) -> bool {
    r.is_set("github.repos") || r.is_set("github.org")
}

/// Where webhooks are taken, with what they are signed with, or neither.
fn webhook(r: &mut Reader) -> Option<Option<Webhook>> {
    let listen = r.may(&["github", "webhook_listen"], |_, raw| {
        let text = values::text(raw);
        let parsed = text.parse::<SocketAddr>().ok().filter(|listen| listen.port() != 0);
        Ok(parsed.ok_or_else(|| {
            format!(
                "`{}` is no address with a port\nhint: for example \"127.0.0.1:9124\", behind a server that speaks TLS",
                text.escape_debug()
            )
        })?)
    });
    let secret = path(r, "webhook_secret");
    match (listen?, secret?) {
        (Some(_), Some(_)) if !r.is_set("github.repos") => {
            r.contradiction(
                &["github.webhook_listen"],
                "webhooks are taken for repositories that are named\nhint: name them in `github.repos`"
                    .to_owned(),
            );
            None
        }
        (Some(listen), Some(secret)) => Some(Some(Webhook { listen, secret })),
        (None, None) => Some(None),
        (Some(_), None) | (None, Some(_)) => {
            r.contradiction(
                &["github.webhook_listen", "github.webhook_secret"],
                "`github.webhook_listen` and `github.webhook_secret` go together\n\
                 hint: without a secret anybody could send what looks like GitHub's"
                    .to_owned(),
            );
            None
        }
    }
}

/// The version of the runner with its hash, or neither.
fn runner(r: &mut Reader) -> Option<Option<(RunnerVersion, Sha256)>> {
    let version = r.may(&["github", "runner_version"], |_, raw| {
        let parsed = values::text(raw).parse::<RunnerVersion>();
        Ok(parsed.map_err(|error| error.to_string())?)
    });
    let sha256 = r.may(&["github", "runner_sha256"], |_, raw| {
        let parsed = values::text(raw).parse::<Sha256>();
        Ok(parsed.map_err(|error| error.to_string())?)
    });
    match (version?, sha256?) {
        (Some(version), Some(sha256)) => Some(Some((version, sha256))),
        (None, None) => Some(None),
        (Some(_), None) | (None, Some(_)) => {
            r.contradiction(
                &["github.runner_version", "github.runner_sha256"],
                "`github.runner_version` and `github.runner_sha256` go together\n\
                 hint: set both, as the notes of the release print them, or neither"
                    .to_owned(),
            );
            None
        }
    }
}

/// The address of the API. Credentials go there, so that nothing but this host's own loopback is asked without TLS.
fn api(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let wrong = |hint: &str| {
        Err(format!(
            "`{}` is no address of an API\nhint: {hint}",
            text.escape_debug()
        ))
    };
    let (rest, is_plain) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return wrong("write \"https://api.github.com\", or \"https://HOST/api/v3\""),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b))
    };
    let port = host
        .split_once(':')
        .is_none_or(|(_, port)| port.parse::<u16>().is_ok());
    if name.is_empty() || !plain(name) || !plain(path) || !port {
        return wrong("write it as https://HOST or https://HOST/PATH");
    }
    if is_plain && !matches!(name, "127.0.0.1" | "localhost") {
        return wrong("write https: whoever listens on the way would have the credentials");
    }
    Ok(text.to_owned())
}

/// The address of archives, each of which is known by its hash, so that it does not matter who is asked.
fn releases(text: &str) -> Result<String, String> {
    let known = ["https://", "http://", "file:///"];
    let is_known = known
        .iter()
        .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    if !is_known || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
        return Err(format!(
            "`{}` is no address of a folder\nhint: write it as https://HOST/PATH or file:///PATH",
            text.escape_debug()
        ));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn repo(text: &str) -> Result<Repo, String> {
    text.parse()
        .map_err(|error: crate::job::NounError| error.to_string())
}

/// An organisation's name follows the rules of the first half of a repository's.
fn org(text: &str) -> Result<String, String> {
    match format!("{text}/x").parse::<Repo>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "`{}` is no name of an organisation\nhint: letters, digits and `-`, as in its address on GitHub",
            text.escape_debug()
        )),
    }
}

fn label(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 256 && !text.contains(|c: char| c == ',' || c.is_control());
    if fits && text.trim() == text {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{}` is no label of a runner\nhint: 1 to 256 characters, without commas and blanks at its ends",
            text.escape_debug()
        ))
    }
}

/// An organisation's runners serve its own repositories.
fn refuse_strangers(r: &mut Reader, org: &str, repos: &BTreeSet<Repo>) {
    let stranger = repos.iter().find(|repo| !repo.owner().eq_ignore_ascii_case(org));
    if let Some(repo) = stranger {
        r.contradiction(
            &["github.repos"],
            format!(
                "`{repo}` is not of `{org}`, whose runners these are\n\
                 hint: take it out, or leave `github.org` out: then every repository has runners of its own"
            ),
        );
    }
}

/// A runner of an organisation is made for one repository and may be given the job of another, in the sandbox of the first:
/// so they must have the same one.
pub(super) fn refuse_unlike(r: &mut Reader, github: &GitHub, settings: &BTreeMap<Repo, RepoConfig>) {
    let Serves::Org { org, repos } = &github.serves else {
        return;
    };
    let own = |repo: &Repo| settings.get(repo).filter(|own| **own != RepoConfig::default());
    let mut served: BTreeSet<&Repo> = repos.iter().collect();
    if repos.is_empty() {
        served = settings
            .keys()
            .filter(|repo| repo.owner().eq_ignore_ascii_case(org))
            .collect();
    }
    let first = repos.first().and_then(own);
    if let Some(repo) = served.into_iter().find(|repo| own(repo) != first) {
        r.contradiction(
            &["github.org"],
            format!(
                "runners of `{org}` run jobs of all its repositories in one sandbox, and `[repos]` gives `{repo}` another than the rest\n\
                 hint: name the repositories in `github.repos` and leave `github.org` out: then each has runners of its own"
            ),
        );
    }
}

/// Only an App is told which repositories there are.
fn refuse_unnamed(r: &mut Reader, org: &str) {
    r.contradiction(
        &["github.org", "github.token_file"],
        format!(
            "a personal token is not told which repositories of `{org}` it may see\n\
             hint: name them in `github.repos`, or use an App"
        ),
    );
}

/// Settings of GitHub are for nobody without a repository or an organisation.
fn refuse_for_nobody(r: &mut Reader) {
    let set = KEYS
        .iter()
        .find(|key| key.name.starts_with("github.") && key.name != "github.repos" && r.is_set(key.name));
    if let Some(key) = set {
        let name = key.name;
        r.contradiction(
            &[name],
            format!(
                "`{name}` is set, and no repository or organisation is named\n\
                 hint: name them in `github.repos` or `github.org`"
            ),
        );
    }
}

/// Without labels a runner gets no job; with those alone that every runner has it takes jobs that are not meant for it.
fn refuse_bad_labels(r: &mut Reader, labels: &[String]) {
    const COMMON: [&str; 8] = [
        "self-hosted",
        "linux",
        "macos",
        "windows",
        "x64",
        "arm64",
        "arm",
        "x86",
    ];
    let hint = "hint: give it one of its own, [\"self-hosted\", \"linux\", \"eph-native\"]";
    let is_common = |label: &String| COMMON.contains(&label.to_ascii_lowercase().as_str());
    let lower: BTreeSet<String> = labels.iter().map(|label| label.to_ascii_lowercase()).collect();
    let what = if labels.is_empty() {
        "`github.labels` names no label of our runners".to_owned()
    } else if labels.len() > MAX_LABELS {
        format!("`github.labels` names more than {MAX_LABELS} labels")
    } else if lower.len() < labels.len() {
        "`github.labels` names a label twice, and case does not count".to_owned()
    } else if labels.iter().all(is_common) {
        "`github.labels` names only labels that runners of others have too, so ours would take their jobs"
            .to_owned()
    } else {
        return;
    };
    r.contradiction(
        &["github.labels", "github.repos", "github.org"],
        format!("{what}\n{hint}"),
    );
}
