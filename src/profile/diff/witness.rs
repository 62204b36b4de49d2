//! Targets on both sides of every boundary that rules draw.

use std::collections::{BTreeMap, BTreeSet};

use super::sample::samples;
use crate::profile::sbpl::filter::{Filter, Pattern, Test};
use crate::profile::sbpl::target::{End, Host, Target, Transport};
use crate::profile::sbpl::vocabulary::{OperationId, Shape};
use crate::profile::sbpl::{Ruleset, Semantics, regex_of};

/// A name that no profile has.
const FRESH: &str = "~";

/// A port that stands for all that no rule names.
const FRESH_PORT: u16 = 54_321;

/// Most paths, and most targets for one group of operations.
const TARGETS_MAX: usize = 60_000;

/// Processes by their relation, as [`Target::process`] takes them.
const RELATIONS: [&str; 6] = ["self", "children", "same-sandbox", "pgrp", "initproc", "others"];

/// Filters that ask for the one name a lookup is made by, each in its own name space.
const NAMES_OF_A_LOOKUP: [&str; 3] = ["global-name", "local-name", "xpc-service-name"];

/// Filters whose answer a connection brings along.
const OF_THE_SOCKET: [&str; 3] = ["socket-domain", "socket-type", "vnode-type"];

/// What is tried.
pub(super) struct Tried {
    pub(super) witnesses: Vec<Witness>,
    /// Whether there is more that was left out.
    pub(super) cut: bool,
}

/// A target and how to show it.
#[derive(Clone)]
pub(super) struct Witness {
    pub(super) target: Target,
    pub(super) shown: String,
}

/// Paths on both sides of every boundary that the rules of two rulesets draw.
#[derive(Default)]
pub(super) struct Paths {
    /// One for each way to answer all tests that rules have for paths.
    distinct: BTreeSet<String>,
    /// Whether there is more that was left out.
    cut: bool,
}

/// What the rules ask about a target.
#[derive(Default)]
struct Asked {
    /// Whether they ask for its path.
    path: bool,
    texts: BTreeSet<(&'static str, String)>,
    numbers: BTreeSet<(&'static str, i64, String)>,
    ports: BTreeSet<u16>,
    endpoints: bool,
    relations: bool,
    sockets: bool,
}

/// The targets that tell apart everything which the rules of these rulesets for these operations tell apart.
/// `paths` are those of both.
pub(super) fn of(sides: &[(&Ruleset, OperationId); 2], paths: &Paths) -> Tried {
    let mut asked = Asked::default();
    let mut near = false;
    for (ruleset, operation) in sides {
        near |= ["network-bind", "network-inbound"].contains(&ruleset.vocabulary.operation(*operation).name);
        asked.sockets |= ruleset.vocabulary.goes_with(*operation, "network");
        for id in ruleset.ancestors(*operation) {
            for rule in ruleset.rules_for(id) {
                rule.filters.iter().for_each(|filter| asked.note(filter));
            }
        }
    }
    let mut tried = asked.multiplied(asked.subjects(near, paths));
    tried.cut |= asked.path && paths.cut;
    tried
}

impl Paths {
    /// Those of both rulesets. Of paths that no test tells apart, the first is enough for every operation.
    pub(super) fn of(rulesets: [&Ruleset; 2], semantics: &Semantics) -> Self {
        let rules = rulesets.iter().flat_map(|ruleset| &ruleset.rules);
        let tests = rules.flat_map(|rule| &rule.filters).flat_map(Filter::tests);
        let patterns: BTreeMap<(Shape, &str), &Pattern> = tests
            .filter_map(|test| match test {
                Test::Path(pattern) => Some(((pattern.shape, &*pattern.text), pattern)),
                _ => None,
            })
            .collect();

        let mut paths = BTreeSet::from([format!("/{FRESH}")]);
        // Ends of expressions that may follow any folder.
        let mut floating = BTreeSet::new();
        for pattern in patterns.values() {
            let texts = boundary(pattern, "/");
            if pattern.shape == Shape::Regex && !pattern.text.starts_with('^') {
                floating.extend(texts.iter().map(|end| end.trim_start_matches('/').to_owned()));
            }
            let (whole, ends) = texts
                .into_iter()
                .partition::<Vec<_>, _>(|text| text.starts_with('/'));
            paths.extend(whole);
            floating.extend(ends);
        }
        let folders: Vec<String> = paths
            .iter()
            .filter_map(|path| path.strip_suffix(FRESH).filter(|folder| folder.ends_with('/')))
            .map(str::to_owned)
            .collect();
        let ends = floating
            .iter()
            .flat_map(|end| folders.iter().map(move |folder| format!("{folder}{end}")));
        let cut = paths.len() + folders.len() * floating.len() > TARGETS_MAX;
        let all = paths.iter().cloned().chain(ends).take(TARGETS_MAX);

        let mut known = BTreeSet::new();
        let distinct = all
            .filter(|path| {
                let target = Target::file(path);
                let answers: Vec<bool> = patterns
                    .values()
                    .map(|pattern| pattern.matches_path(&target, semantics))
                    .collect();
                known.insert(answers)
            })
            .collect();
        Self { distinct, cut }
    }
}

impl Asked {
    fn note(&mut self, filter: &Filter) {
        for test in filter.tests() {
            match test {
                Test::Path(_) => self.path = true,
                Test::Text { filter, pattern } => {
                    let texts = boundary(pattern, "");
                    self.texts.extend(texts.into_iter().map(|text| (*filter, text)));
                }
                Test::Number { filter, values } if ["target", "semaphore-owner"].contains(filter) => {
                    self.relations |= !values.is_empty();
                }
                Test::Number { filter, values } => {
                    let values = values
                        .iter()
                        .map(|(number, name)| (*filter, *number, name.clone()));
                    self.numbers.extend(values);
                }
                Test::Endpoint { endpoint, .. } => {
                    self.endpoints = true;
                    self.ports.extend(endpoint.port);
                }
                Test::UnixSocket { .. } | Test::Unheld { .. } => {}
            }
        }
    }

    /// What is tried: one thing at a time.
    fn subjects(&self, near: bool, paths: &Paths) -> Vec<Witness> {
        let mut subjects = Vec::new();
        if self.path {
            let node = if self.sockets {
                Target::unix_socket
            } else {
                Target::file
            };
            let paths = paths.distinct.iter();
            subjects.extend(paths.map(|path| Witness::new(node(path), path.clone())));
        }
        if self.sockets {
            subjects.push(Witness::new(Target::unix_socket("/~"), "/~".to_owned()));
            subjects.extend(self.ends(near));
        }
        let (names, _) = self.names();
        subjects.extend(
            names
                .into_iter()
                .map(|(filter, text)| Witness::new(Target::named(filter, text), format!("{filter}={text}"))),
        );
        if self.relations {
            let processes = RELATIONS
                .iter()
                .filter_map(|name| Some((Target::process(name)?, *name)));
            subjects.extend(processes.map(|(target, name)| Witness::new(target, name.to_owned())));
        }
        if subjects.is_empty() {
            subjects.push(Witness::new(Target::nothing(), "-".to_owned()));
        }
        subjects
    }

    fn ends(&self, near: bool) -> Vec<Witness> {
        let mut ports: Vec<u16> = self.ports.iter().copied().collect();
        ports.push(FRESH_PORT);
        let hosts = [
            (Host::Loopback, false),
            (Host::Loopback, true),
            (Host::MappedLoopback, true),
            (Host::Own, false),
            (Host::Other, false),
            (Host::Other, true),
        ];
        let mut ends = Vec::new();
        for transport in [Transport::Tcp, Transport::Udp, Transport::Raw] {
            for (host, v6) in hosts {
                let ports = ports.iter().map(|port| Some(*port));
                let ports: Vec<Option<u16>> = match transport {
                    Transport::Raw => vec![None],
                    Transport::Tcp | Transport::Udp => ports.collect(),
                };
                ends.extend(ports.into_iter().map(|port| End {
                    host,
                    port,
                    v6,
                    transport,
                }));
            }
        }
        let target = if near { Target::local } else { Target::remote };
        ends.into_iter()
            .map(target)
            .map(|target| Witness::new(target.clone(), target.to_string()))
            .collect()
    }

    /// The texts that name what is asked for, and those that are properties of it.
    fn names(&self) -> (Vec<Text<'_>>, Vec<Text<'_>>) {
        let texts = self.texts.iter().map(|(filter, text)| (*filter, text.as_str()));
        let fresh: BTreeSet<&'static str> = self.texts.iter().map(|(filter, _)| *filter).collect();
        let all = texts.chain(fresh.into_iter().map(|filter| (filter, FRESH)));
        all.partition(|(filter, _)| NAMES_OF_A_LOOKUP.contains(filter))
    }

    /// Every subject with every property and every number that rules ask for besides.
    fn multiplied(&self, subjects: Vec<Witness>) -> Tried {
        let (_, texts) = self.names();
        let mut properties: BTreeMap<&'static str, Vec<Property>> = BTreeMap::new();
        for (filter, text) in texts {
            properties.entry(filter).or_default().push(Property::Text(text));
        }
        for (filter, number, name) in &self.numbers {
            let number = Property::Number(*number, name);
            properties.entry(filter).or_default().push(number);
        }
        let mut tried = Tried {
            witnesses: subjects,
            cut: false,
        };
        for (filter, values) in properties {
            let open =
                |witness: &&Witness| !(OF_THE_SOCKET.contains(&filter) && witness.target.is_connection());
            let without: Vec<&Witness> = tried.witnesses.iter().filter(open).collect();
            let room = TARGETS_MAX.saturating_sub(tried.witnesses.len());
            tried.cut |= without.len() * values.len() > room;
            let with = values
                .iter()
                .flat_map(|value| without.iter().map(move |witness| witness.with(filter, value)));
            let more: Vec<Witness> = with.take(room).collect();
            tried.witnesses.extend(more);
        }
        tried
    }
}

/// A filter and what it asks for.
type Text<'a> = (&'static str, &'a str);

/// What a target has besides its name.
enum Property<'a> {
    Text(&'a str),
    Number(i64, &'a str),
}

impl Witness {
    fn new(target: Target, shown: String) -> Self {
        Self { target, shown }
    }

    fn with(&self, filter: &'static str, property: &Property<'_>) -> Self {
        let target = self.target.clone();
        let shown = match self.shown.as_str() {
            "-" => "",
            shown => shown,
        };
        let (target, property) = match property {
            Property::Text(text) => (target.with_text(filter, text), format!("{filter}={text}")),
            Property::Number(number, name) => (target.with_number(filter, *number), format!("({name})")),
        };
        Self::new(target, format!("{shown} {property}").trim_start().to_owned())
    }
}

/// Texts on both sides of the boundary that a pattern draws; `separator` stands between the parts of a path.
fn boundary(pattern: &Pattern, separator: &str) -> Vec<String> {
    let text = pattern.text.to_string();
    match pattern.shape {
        Shape::Literal => vec![text],
        Shape::Prefix => vec![text.clone(), format!("{text}{FRESH}"), format!("{text}/{FRESH}")],
        Shape::Subpath if text.ends_with('/') => vec![format!("{text}{FRESH}"), text],
        Shape::Subpath => vec![format!("{text}{separator}{FRESH}"), text],
        // Where an expression is not anchored, or ends in the middle of a name.
        Shape::Regex => samples(&regex_of(pattern))
            .into_iter()
            .flat_map(|sample| {
                [
                    format!("{sample}{FRESH}"),
                    format!("{sample}/{FRESH}"),
                    format!("{FRESH}{sample}"),
                    format!("/{FRESH}{sample}"),
                    sample,
                ]
            })
            .collect(),
    }
}
