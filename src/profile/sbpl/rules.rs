//! Rules: what a run of a profile makes, kept in their order and by operation.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::Place;
use super::decide::Verdict;
use super::eval::{Answer, Fault, Machine, fault};
use super::filter::{EndpointPattern, Filter, Pattern, Test};
use super::procedures::{check_depth, check_length};
use super::value::{FrameId, Value};
use super::vocabulary::{Argument, FilterId, ModifierArgument, OperationId, Shape, Vocabulary};

/// Filters whose names are few and all known, so that another name is a mistake.
const CLOSED: [&str; 4] = ["target", "semaphore", "vnode-type", "socket"];

/// The modifier that holds the rules for single messages.
pub(super) const MESSAGE_FILTER: &str = "apply-message-filter";

/// What `policy.scm` of macOS 10.15 allows every profile with `(target self)`.
const IMPLICIT: [&str; 2] = ["signal", "mach-task-name"];

/// Protocols as filters number them: 1 IPv4, 2 IPv6, 4 TCP, 8 UDP.
const PROTOCOLS: [(&str, u8); 9] = [
    ("ip", 3),
    ("ip4", 1),
    ("ip6", 2),
    ("tcp", 7),
    ("tcp4", 5),
    ("tcp6", 6),
    ("udp", 11),
    ("udp4", 9),
    ("udp6", 10),
];

/// One `(allow …)` or `(deny …)`.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it says.
    pub verdict: Verdict,
    /// About what, with the name each was written by.
    pub operations: Vec<(OperationId, Arc<str>)>,
    /// Names that are accepted and mean nothing.
    pub dropped: Vec<Arc<str>>,
    /// Under which conditions, any of which is enough.
    pub filters: Vec<Filter>,
    /// What else it asks for.
    pub modifiers: Vec<Modifier>,
    /// Where it stands.
    pub at: Place,
}

/// A `(with …)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Modifier {
    /// Its name, as `message`.
    pub name: String,
    /// What it was given.
    pub argument: Option<String>,
}

/// A profile after its run.
#[derive(Debug)]
pub struct Ruleset {
    /// What it says its version is.
    pub version: i64,
    /// The names it was made with.
    pub vocabulary: &'static Vocabulary,
    /// All rules, in the order they were made.
    pub rules: Vec<Rule>,
    /// Imports that were not followed.
    pub skipped: Vec<(Place, String)>,
    /// By operation, the rules with filters, and the last one without.
    pub(super) filtered: Vec<Vec<usize>>,
    pub(super) unfiltered: Vec<Option<usize>>,
    /// What every profile allows a process towards itself.
    pub(super) implicit: Vec<OperationId>,
}

impl Ruleset {
    pub(super) fn new(
        version: i64,
        vocabulary: &'static Vocabulary,
        rules: Vec<Rule>,
        skipped: Vec<(Place, String)>,
    ) -> Self {
        let operations = vocabulary.operations().count();
        let mut filtered = vec![Vec::new(); operations];
        let mut unfiltered = vec![None; operations];
        for (index, rule) in rules.iter().enumerate() {
            for (id, _) in &rule.operations {
                if rule.filters.is_empty() {
                    unfiltered[usize::from(id.0)] = Some(index);
                } else {
                    filtered[usize::from(id.0)].push(index);
                }
            }
        }
        Self {
            version,
            vocabulary,
            rules,
            skipped,
            filtered,
            unfiltered,
            implicit: IMPLICIT
                .iter()
                .filter_map(|name| vocabulary.asked(name))
                .collect(),
        }
    }
}

impl Ruleset {
    /// `operation`, its parent, and so on.
    pub fn ancestors(&self, operation: OperationId) -> impl Iterator<Item = OperationId> {
        std::iter::successors(Some(operation), |id| self.vocabulary.operation(*id).parent)
    }

    /// Whether every profile allows `operation` towards the process itself.
    pub fn is_implicit(&self, operation: OperationId) -> bool {
        self.implicit.contains(&operation)
    }

    /// The filters that ask for what one of their rule's operations does not have, with that operation's name:
    /// of each rule and kind of filter the first.
    /// Such a filter never matches for it. The compiler takes them: profiles of macOS 10.15 and 26 have some.
    pub fn misplaced(&self) -> Vec<(&Rule, &Test, &str)> {
        let mut found = Vec::new();
        for rule in &self.rules {
            let mut seen: Vec<&str> = Vec::new();
            for test in rule.filters.iter().flat_map(Filter::tests) {
                let Some(category) = self.category(test) else {
                    continue;
                };
                // A rule can have a hundred thousand filters, but they are of few kinds.
                if seen.contains(&category) {
                    continue;
                }
                seen.push(category);
                let strangers = rule
                    .operations
                    .iter()
                    .filter(|(id, _)| !self.vocabulary.goes_with(*id, category));
                found.extend(strangers.map(|(_, name)| (rule, test, &**name)));
            }
        }
        found
    }

    fn category(&self, test: &Test) -> Option<&'static str> {
        match test {
            Test::Path(_) => Some("path"),
            Test::Endpoint { .. } | Test::UnixSocket { .. } => Some("network"),
            Test::Text { filter, .. } | Test::Number { filter, .. } => {
                let (id, _) = self.vocabulary.filter_named(filter)?;
                Some(self.vocabulary.filter(id).category)
            }
            Test::Unheld { .. } => None,
        }
    }

    /// The rules that name exactly `operation`, in their order.
    pub fn rules_for(&self, operation: OperationId) -> impl Iterator<Item = &Rule> {
        let names = move |rule: &&Rule| rule.operations.iter().any(|(id, _)| *id == operation);
        self.rules.iter().filter(names)
    }
}

impl Modifier {
    /// How much memory a copy takes, in bytes, about.
    pub(super) fn size_byte(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.argument.as_ref().map_or(0, String::len)
    }
}

impl Rule {
    /// The text that `(with message …)` puts on reports of this rule.
    pub fn message(&self) -> Option<&str> {
        let message = self.modifiers.iter().find(|modifier| modifier.name == "message");
        message.and_then(|modifier| modifier.argument.as_deref())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}", self.verdict)?;
        for name in self.operations.iter().map(|(_, name)| name).chain(&self.dropped) {
            write!(f, " {name}")?;
        }
        for filter in &self.filters {
            write!(f, " {filter}")?;
        }
        for modifier in &self.modifiers {
            write!(f, " {modifier}")?;
        }
        write!(f, ")")
    }
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.argument, self.name.as_str()) {
            (None, MESSAGE_FILTER) => write!(f, "({MESSAGE_FILTER})"),
            (None, name) => write!(f, "(with {name})"),
            (Some(number), "send-signal" | "errno") => write!(f, "(with {} {number})", self.name),
            (Some(text), name) => write!(f, "(with {name} {})", super::filter::quoted(text)),
        }
    }
}

impl Machine<'_> {
    /// Makes a rule of what `allow` or `deny` was given.
    pub(super) fn rule(&mut self, verdict: Verdict, arguments: Vec<Value>, at: &Place) -> Answer {
        let mut rule = Rule {
            verdict,
            operations: Vec::new(),
            dropped: Vec::new(),
            filters: Vec::new(),
            modifiers: self.modifiers.clone(),
            at: at.clone(),
        };
        for argument in arguments {
            match argument {
                Value::Operation(Some(id), name) => rule.operations.push((id, self.store.name(name))),
                Value::Operation(None, name) => rule.dropped.push(self.store.name(name)),
                Value::Filter(filter) => {
                    self.take(filter.size_byte(), at)?;
                    rule.filters.push((*filter).clone());
                }
                Value::Modifier(modifier) => {
                    self.take(modifier.size_byte(), at)?;
                    rule.modifiers.push((*modifier).clone());
                }
                Value::Bool(false) => {
                    return Err(fault(at, "there is #f where a filter should be")
                        .hint("is a parameter not defined? give it with -D NAME=VALUE"));
                }
                other => {
                    let kind = self.store.kind(&other);
                    return Err(fault(
                        at,
                        format!("a rule is made of operations and filters, not of {kind}"),
                    ));
                }
            }
        }
        if rule.operations.is_empty() && rule.dropped.is_empty() {
            return Err(fault(at, format!("this {verdict} names no operation")));
        }
        // A condition around a rule goes with each of the rule's own.
        let around: usize = self.filters.iter().map(Filter::size_byte).sum();
        let names = (rule.operations.len() + rule.dropped.len()) * size_of::<(OperationId, Arc<str>)>();
        self.take(size_of::<Rule>() + names + around, at)?;
        for outer in &self.filters {
            let inner = std::mem::take(&mut rule.filters);
            rule.filters = vec![if inner.is_empty() {
                outer.clone()
            } else {
                Filter::All(vec![Filter::Any(inner), outer.clone()])
            }];
        }
        rule.filters
            .iter()
            .try_for_each(|filter| check_depth(filter, at))?;
        self.rules.push(rule);
        Ok(Value::Unspecified)
    }

    /// Makes a filter of its arguments.
    pub(super) fn filter(&mut self, id: FilterId, shape: Shape, arguments: &[Value], at: &Place) -> Answer {
        let kind = self.vocabulary.filter(id);
        let tests = match &kind.argument {
            Argument::Endpoint => self.endpoints(kind.name == "local", arguments, at)?,
            _ if ["process", "system", "extension"].contains(&kind.category) => {
                let mut text = format!("({}", kind.name);
                for value in arguments {
                    text.push(' ');
                    text.push_str(&self.argument(kind.name, value, at)?);
                    check_length(&text, at)?;
                }
                text.push(')');
                vec![Filter::Test(Test::Unheld { text })]
            }
            Argument::Pattern => self.patterns(kind.name, kind.category, shape, arguments, at)?,
            Argument::Named(names) => {
                let values = arguments
                    .iter()
                    .map(|value| self.number(kind.name, kind.category, names, value, at))
                    .collect::<Result<Vec<_>, _>>()?;
                vec![Filter::Test(Test::Number {
                    filter: kind.name,
                    values,
                })]
            }
            Argument::Flag => vec![Filter::Test(Test::Unheld {
                text: format!("({})", kind.name),
            })],
        };
        let mut tests = tests;
        match (tests.len(), tests.pop()) {
            (1, Some(test)) => self.combined(test, at),
            (_, Some(last)) => {
                tests.push(last);
                self.combined(Filter::Any(tests), at)
            }
            (_, None) => Err(fault(at, format!("`{}` needs an argument", kind.name))),
        }
    }

    /// An argument of a filter that is not looked into, as it could be written.
    fn argument(&self, filter: &str, value: &Value, at: &Place) -> Result<String, Box<Fault>> {
        match value {
            Value::String(string) => Ok(super::filter::quoted(string)),
            Value::Bool(_) | Value::Int(_) => Ok(self.shown(value)),
            Value::Symbol(name) if self.is_constant(&self.store.name(*name)) => Ok(self.shown(value)),
            other => Err(fault(
                at,
                format!(
                    "`{filter}` takes texts, names and numbers, not {}",
                    self.store.kind(other)
                ),
            )),
        }
    }

    fn patterns(
        &mut self,
        name: &'static str,
        category: &str,
        shape: Shape,
        arguments: &[Value],
        at: &Place,
    ) -> Result<Vec<Filter>, Box<Fault>> {
        let mut filters = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let Value::String(text) = argument else {
                let kind = self.store.kind(argument).trim_start_matches("a ");
                let message = format!("invalid data type of {category} filter; expected pattern, got {kind}");
                let hint = "is a parameter not defined? give it with -D NAME=VALUE";
                return Err(match argument {
                    Value::Bool(false) => fault(at, message).hint(hint),
                    _ => fault(at, message),
                });
            };
            let pattern = Pattern::new(shape, text)
                .map_err(|why| fault(at, format!("the expression `{text}` {why}")))?;
            self.take(pattern.size_byte(), at)?;
            filters.push(Filter::Test(if name == "path" {
                Test::Path(pattern)
            } else {
                Test::Text {
                    filter: name,
                    pattern,
                }
            }));
        }
        Ok(filters)
    }

    fn number(
        &self,
        filter: &str,
        category: &str,
        names: &std::collections::BTreeMap<&'static str, i64>,
        value: &Value,
        at: &Place,
    ) -> Result<(i64, String), Box<Fault>> {
        match value {
            Value::Int(number) => {
                let name = names.iter().find(|(_, known)| **known == *number);
                Ok((
                    *number,
                    name.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned()),
                ))
            }
            Value::Symbol(name) => {
                let name = self.store.name(*name);
                match names.get(&*name) {
                    Some(number) => Ok((*number, name.to_string())),
                    None if CLOSED.contains(&category) || !self.is_constant(&name) => {
                        let unknown = fault(at, format!("`{name}` is none of what `{filter}` takes"));
                        Err(match super::vocabulary::nearest(&name, names.keys().copied()) {
                            Some(near) => unknown.hint(format!("did you mean `{near}`?")),
                            None => unknown,
                        })
                    }
                    // The tables of commands and calls are not complete; such a name equals no number.
                    None => Ok((i64::MIN, name.to_string())),
                }
            }
            other => Err(fault(
                at,
                format!(
                    "`{filter}` takes names and numbers, not {}",
                    self.store.kind(other)
                ),
            )),
        }
    }

    /// `(remote PROTOCOL "HOST:PORT"…)` or `(remote unix-socket FILTER)`.
    fn endpoints(&self, local: bool, arguments: &[Value], at: &Place) -> Result<Vec<Filter>, Box<Fault>> {
        let Some((Value::Symbol(protocol), rest)) = arguments.split_first() else {
            return Err(fault(at, "a protocol is missing").hint("write (remote tcp \"localhost:80\")"));
        };
        let protocol = self.store.name(*protocol);
        if matches!(&*protocol, "unix-socket" | "unix") {
            let path = match rest {
                [] => None,
                [Value::Filter(filter)] => Some(Box::new((**filter).clone())),
                _ => return Err(fault(at, "a Unix socket takes one filter of its path")),
            };
            return Ok(vec![Filter::Test(Test::UnixSocket { local, path })]);
        }
        let Some((protocol, bits)) = PROTOCOLS.into_iter().find(|(name, _)| *name == &*protocol) else {
            return Err(fault(at, format!("`{protocol}` is no protocol"))
                .hint("known are ip, tcp and udp, each also with 4 or 6, and unix-socket"));
        };
        let everywhere = [Value::String("*:*".into())];
        let texts = if rest.is_empty() { &everywhere } else { rest };
        texts
            .iter()
            .map(|text| {
                let Value::String(text) = text else {
                    let kind = self.store.kind(text);
                    return Err(fault(at, format!("an address is a string, not {kind}")));
                };
                let (localhost, port) = self.address(text, at)?;
                Ok(Filter::Test(Test::Endpoint {
                    local,
                    endpoint: EndpointPattern {
                        protocol,
                        bits,
                        localhost,
                        port,
                    },
                }))
            })
            .collect()
    }

    /// Reads `HOST:PORT`: whether the machine itself is meant, and which port.
    fn address(&self, text: &str, at: &Place) -> Result<(bool, Option<u16>), Box<Fault>> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(
                fault(at, format!("`{text}` is no address")).hint("write \"localhost:80\" or \"*:80\"")
            );
        };
        let localhost = match host {
            "*" => false,
            "localhost" => true,
            "local" if self.semantics.local_is_a_host => true,
            _ => {
                return Err(fault(at, "host must be * or localhost in network address")
                    .hint("the sandbox knows no other addresses; the egress filter does"));
            }
        };
        let port = match port {
            "*" => None,
            port => match port.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                _ => {
                    return Err(fault(at, format!("`{port}` is no port"))
                        .hint("write one number from 1 to 65535, or *"));
                }
            },
        };
        Ok((localhost, port))
    }

    /// `(with NAME)` or `(with NAME ARGUMENT)`.
    pub(super) fn modifier(&mut self, parts: &[(Value, Place)], env: FrameId, at: &Place) -> Answer {
        let Some((Value::Symbol(name), place)) = parts.first() else {
            return Err(fault(at, "with needs the name of a modifier"));
        };
        let name = self.name_of(*name);
        let Some((name, kind)) = self.vocabulary.modifier(&name) else {
            return Err(fault(place, format!("`{name}` is no modifier")));
        };
        let argument = match (kind, parts.get(1)) {
            (ModifierArgument::None, None) => None,
            (ModifierArgument::None, Some((_, place))) => {
                return Err(fault(place, format!("`{name}` takes no argument")));
            }
            (_, None) => return Err(fault(at, format!("`{name}` needs an argument"))),
            (_, Some((argument, place))) => {
                let value = self.eval(argument.clone(), env, place.clone())?;
                let fits = match kind {
                    ModifierArgument::Text => matches!(value, Value::String(_)),
                    _ => matches!(value, Value::Int(_) | Value::Symbol(_)),
                };
                if !fits {
                    return Err(fault(
                        place,
                        format!("`{name}` does not take {}", self.store.kind(&value)),
                    ));
                }
                Some(self.shown(&value))
            }
        };
        Ok(Value::Modifier(Arc::new(Modifier {
            name: name.to_owned(),
            argument,
        })))
    }
}
