//! Targets on both sides of every boundary that rules draw.

use std::collections::BTreeSet;

use super::sample::samples;
use crate::profile::sbpl::filter::{Filter, Pattern, Test};
use crate::profile::sbpl::target::{End, Host, Target, Transport};
use crate::profile::sbpl::vocabulary::{OperationId, Shape};
use crate::profile::sbpl::{Ruleset, regex_of};

/// A name that no profile has.
const FRESH: &str = "~";

/// A port that stands for all that no rule names.
const FRESH_PORT: u16 = 54_321;

/// Most targets for one group of operations.
const TARGETS_MAX: usize = 60_000;

/// Processes by their relation, as [`Target::process`] takes them.
const RELATIONS: [&str; 6] = ["self", "children", "same-sandbox", "pgrp", "initproc", "others"];

/// A target and how to show it.
pub(super) struct Witness {
    pub(super) target: Target,
    pub(super) shown: String,
}

/// What the rules ask about a target.
#[derive(Default)]
struct Asked {
    paths: BTreeSet<String>,
    /// Ends of expressions that may follow any folder.
    floating: BTreeSet<String>,
    texts: BTreeSet<(&'static str, String)>,
    numbers: BTreeSet<(&'static str, i64, String)>,
    ports: BTreeSet<u16>,
    endpoints: bool,
    relations: bool,
    sockets: bool,
}

/// The targets that tell apart everything which the rules of these rulesets for these operations tell apart.
pub(super) fn of(sides: &[(&Ruleset, OperationId); 2]) -> Vec<Witness> {
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
    let subjects = asked.subjects(near);
    asked.multiplied(subjects)
}

impl Asked {
    fn note(&mut self, filter: &Filter) {
        for test in filter.tests() {
            match test {
                Test::Path(pattern) => self.note_path(pattern),
                Test::Text { filter, pattern } => {
                    let texts = boundary(pattern, "");
                    self.texts.extend(texts.into_iter().map(|text| (*filter, text)));
                    self.texts.insert((filter, FRESH.to_owned()));
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

    fn note_path(&mut self, pattern: &Pattern) {
        for path in boundary(pattern, "/") {
            if path.starts_with('/') {
                self.paths.insert(path);
            } else {
                self.floating.insert(path);
            }
        }
        if pattern.shape == Shape::Regex && !pattern.text.starts_with('^') {
            let ends = samples(&regex_of(pattern));
            self.floating
                .extend(ends.into_iter().map(|end| end.trim_start_matches('/').to_owned()));
        }
    }

    /// What is tried: one thing at a time.
    fn subjects(&self, near: bool) -> Vec<Witness> {
        let mut subjects = Vec::new();
        if !self.paths.is_empty() || !self.floating.is_empty() {
            let mut paths = self.paths.clone();
            paths.insert(format!("/{FRESH}"));
            for end in &self.floating {
                let folders: Vec<String> = paths
                    .iter()
                    .filter_map(|path| path.strip_suffix(&format!("/{FRESH}")))
                    .map(|folder| format!("{folder}/{end}"))
                    .collect();
                paths.extend(folders);
            }
            for path in paths {
                if self.sockets {
                    subjects.push(Witness::new(Target::unix_socket(&path), path.clone()));
                } else {
                    subjects.push(Witness::new(Target::file(&path), path));
                }
            }
        }
        if self.sockets {
            subjects.push(Witness::new(Target::unix_socket("/~"), "/~".to_owned()));
            subjects.extend(self.ends(near));
        }
        for (filter, text) in &self.texts {
            subjects.push(Witness::new(
                Target::named(filter, text),
                format!("{filter}={text}"),
            ));
        }
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

    /// Every subject with every number that rules ask for besides.
    fn multiplied(&self, subjects: Vec<Witness>) -> Vec<Witness> {
        let filters: BTreeSet<&'static str> = self.numbers.iter().map(|(filter, ..)| *filter).collect();
        let mut witnesses = subjects;
        for filter in filters {
            let values = self.numbers.iter().filter(|(known, ..)| *known == filter);
            let more: Vec<Witness> = values
                .flat_map(|(_, number, name)| {
                    witnesses.iter().map(move |witness| {
                        let target = witness.target.clone().with_number(filter, *number);
                        Witness::new(target, format!("{} ({name})", witness.shown))
                    })
                })
                .take(TARGETS_MAX.saturating_sub(witnesses.len()))
                .collect();
            witnesses.extend(more);
        }
        // What rules ask texts about can be asked about together, as the name and the number of a call.
        witnesses
    }
}

impl Witness {
    fn new(target: Target, shown: String) -> Self {
        Self { target, shown }
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
        Shape::Regex => samples(&regex_of(pattern)),
    }
}
