//! The two sections whose keys are repositories: `[trust]` and `[repos]`.

use std::collections::BTreeMap;

use super::super::grants::Grant;
use super::super::problem::Place;
use super::super::raw::{Entry, Raw};
use super::super::{RepoConfig, keys};
use super::reader::{Complaints, Reader};
use super::values;
use crate::job::Repo;
use crate::trust::{Conditions, DefaultRoute, NATIVE_EVENTS, Pattern, Route, TrustConfig, TrustRule};
use crate::vm::VmChoice;

pub(super) fn trust(r: &mut Reader) -> Option<TrustConfig> {
    let default = r.must(&["trust", "default"], |key, raw| {
        if values::text(raw) == Route::Native.as_str() {
            return Err(Complaints::from(
                "the default cannot be `native`: only repositories that are named may run on the host\n\
                 hint: name them below `[trust.repos]`, for example `\"acme/*\" = \"native\"`"
                    .to_owned(),
            ));
        }
        values::choice::<DefaultRoute>(key, raw)
    });
    let mut rules: Option<Vec<TrustRule>> = Some(Vec::new());
    let mut seen = Vec::new();
    for entry in r.children(&["trust", "repos"]) {
        let pattern = name_of::<Pattern>(r, &entry, &mut seen);
        let rest = rule(r, &entry);
        rules = match (rules, pattern, rest) {
            (Some(mut rules), Some(pattern), Some(rest)) => {
                let Rest {
                    route,
                    conditions,
                    fallback,
                    vm,
                } = rest;
                rules.push(TrustRule {
                    pattern,
                    route,
                    conditions,
                    fallback,
                    vm,
                });
                Some(rules)
            }
            _ => None,
        };
    }
    Some(TrustConfig {
        default: default?,
        repos: rules?,
    })
}

pub(super) fn repos(r: &mut Reader) -> Option<BTreeMap<Repo, RepoConfig>> {
    let mut repos = Some(BTreeMap::new());
    let mut seen = Vec::new();
    for entry in r.children(&["repos"]) {
        let name = name_of::<Repo>(r, &entry, &mut seen);
        let config = repo(r, &entry);
        repos = match (repos, name, config) {
            (Some(mut repos), Some(name), Some(config)) => {
                repos.insert(name, config);
                Some(repos)
            }
            _ => None,
        };
    }
    repos
}

/// The repository or pattern that an entry's last segment names, told as a problem when it is none or when
/// an earlier entry names it too; these compare without case, as TOML does not.
fn name_of<T>(r: &mut Reader, entry: &Entry, seen: &mut Vec<(T, Place)>) -> Option<T>
where
    T: std::str::FromStr<Err: std::fmt::Display> + PartialEq + Clone,
{
    let text = entry.path.last()?;
    let name = match text.parse::<T>() {
        Ok(name) => name,
        Err(error) => {
            r.problem(entry.key_place, error.to_string());
            return None;
        }
    };
    if let Some((_, first)) = seen.iter().find(|(earlier, _)| *earlier == name) {
        let shown = keys::dotted(entry.path.iter().map(String::as_str));
        let line = first.line;
        let message = format!(
            "`{shown}` stands in line {line} already, since GitHub's names ignore case\nhint: keep one of the two"
        );
        r.problem(entry.key_place, message);
        return None;
    }
    seen.push((name.clone(), entry.key_place));
    Some(name)
}

fn segments(entry: &Entry) -> Vec<&str> {
    entry.path.iter().map(String::as_str).collect()
}

/// The path of `name` below an entry.
fn below<'a>(entry: &'a Entry, name: &'a str) -> Vec<&'a str> {
    let mut path = segments(entry);
    path.push(name);
    path
}

/// A rule without its pattern.
struct Rest {
    route: Route,
    conditions: Conditions,
    fallback: DefaultRoute,
    vm: VmChoice,
}

fn rule(r: &mut Reader, entry: &Entry) -> Option<Rest> {
    match entry.raw.as_ref()? {
        Raw::Table => {}
        Raw::Text(_) | Raw::Number(_) | Raw::Flag(_) | Raw::List(_) => {
            let route = r.must(&segments(entry), |_, raw| Ok(route(values::text(raw))?))?;
            return Some(Rest {
                route,
                conditions: Conditions::default(),
                fallback: DefaultRoute::Refuse,
                vm: VmChoice::default(),
            });
        }
    }
    let route = r.may(&below(entry, "route"), values::choice::<Route>);
    let conditions = conditions(r, entry);
    let fallback = r.must(&below(entry, "fallback"), values::choice);
    let vm = choice(r, entry);
    let route = route?;
    if route.is_none() {
        let shown = keys::dotted(segments(entry));
        let message = format!("`{shown}` has no `route`\nhint: add one, for example `route = \"native\"`");
        r.problem(entry.key_place, message);
    }
    let route = route?;
    refuse_what_is_not_of(r, entry, route)?;
    Some(Rest {
        route,
        conditions: conditions?,
        fallback: fallback?,
        vm: vm?,
    })
}

/// What guests of a rule's jobs are like.
fn choice(r: &mut Reader, entry: &Entry) -> Option<VmChoice> {
    let text = |_: &keys::Key, raw: &Raw| Ok(values::filled(values::text(raw))?);
    let backend = r.may(&below(entry, "backend"), text);
    let image = r.may(&below(entry, "image"), text);
    let cpu = r.may(&below(entry, "cpu"), values::number);
    let memory_byte = r.may(&below(entry, "memory"), values::size);
    let disk_byte = r.may(&below(entry, "disk"), values::size);
    Some(VmChoice {
        backend: backend?,
        image: image?,
        cpu: cpu?,
        memory_byte: memory_byte?,
        disk_byte: disk_byte?,
    })
}

fn route(text: &str) -> Result<Route, String> {
    const ROUTES: [Route; 3] = [Route::Native, Route::Vm, Route::Refuse];
    let found = ROUTES.into_iter().find(|route| route.as_str() == text);
    found.ok_or_else(|| values::not_among(text, "a route", &ROUTES.map(Route::as_str)))
}

fn conditions(r: &mut Reader, entry: &Entry) -> Option<Conditions> {
    let events = r.may(&below(entry, "events"), |_, raw| values::some(raw, event));
    let pull_requests = r.must(&below(entry, "pull_requests"), values::choice);
    let require_label = r.may(&below(entry, "require_label"), |_, raw| {
        Ok(values::filled(values::text(raw))?)
    });
    let allow_bots = r.must(&below(entry, "allow_bots"), values::flag);
    let branches = r.may(&below(entry, "branches"), |_, raw| {
        values::some(raw, values::filled)
    });
    Some(Conditions {
        events: events?.map(|events| events.into_iter().collect()),
        pull_requests: pull_requests?,
        require_label: require_label?,
        allow_bots: allow_bots?,
        branches: branches?,
    })
}

fn event(text: &str) -> Result<String, String> {
    if NATIVE_EVENTS.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(values::not_among(
            text,
            "an event that may be native",
            &NATIVE_EVENTS,
        ))
    }
}

/// The keys of a rule that are about its guests.
const OF_GUESTS: [&str; 5] = ["backend", "image", "cpu", "memory", "disk"];

/// Tells each key of a rule that says nothing for its route: conditions are for native, guests for vm, and for native
/// jobs that may become guests.
fn refuse_what_is_not_of(r: &mut Reader, entry: &Entry, route: Route) -> Option<()> {
    let given: Vec<(Entry, &str)> = r
        .children(&segments(entry))
        .into_iter()
        .filter_map(|child| {
            let name = child.path.last()?.as_str();
            let why = match (route, OF_GUESTS.contains(&name)) {
                _ if name == "route" => return None,
                (Route::Native, false) | (Route::Native | Route::Vm, true) => return None,
                (Route::Vm | Route::Refuse, false) => "is a condition for native",
                (Route::Refuse, true) => "is about guests",
            };
            Some((child.clone(), why))
        })
        .collect();
    for (key, why) in &given {
        let shown = keys::dotted(segments(key));
        let route = route.as_str();
        let message = format!("`{shown}` {why}, and the rule's route is `{route}`\nhint: remove it");
        r.problem(key.key_place, message);
    }
    given.is_empty().then_some(())
}

fn repo(r: &mut Reader, entry: &Entry) -> Option<RepoConfig> {
    let manifest = r.may(&below(entry, "manifest"), |_, raw| {
        Ok(values::manifest(values::text(raw), false)?)
    });
    let posture = r.may(&below(entry, "posture"), values::choice);
    let job_timeout = r.may(&below(entry, "job_timeout"), values::duration);
    let extra_read = r.grants(&below(entry, "extra_read"), Grant::Read);
    let extra_write = r.grants(&below(entry, "extra_write"), Grant::Write);
    let homebrew = r.may(&below(entry, "homebrew"), values::choice);
    let env = r.env(&below(entry, "env"));
    Some(RepoConfig {
        manifest: manifest?,
        posture: posture?,
        job_timeout: job_timeout?,
        extra_read: extra_read?,
        extra_write: extra_write?,
        homebrew: homebrew?,
        env: env?,
    })
}
