//! The evaluator: runs the Scheme that profiles are written in, until it has made all rules.
//!
//! It knows what profiles use of TinyScheme 1.38 and of Apple's prelude, calls in tail position do not nest,
//! and three limits make sure that every run ends: steps, depth and memory. An expression at the top that
//! fails is reported, and the run goes on behind it, so that one run finds several problems.

use std::sync::Arc;
use std::thread;

use super::decide::Semantics;
use super::filter::Filter;
use super::forms::{Next, SPECIALS, Special};
use super::procedures;
use super::read::read;
use super::rules::{Modifier, Rule, Ruleset};
use super::value::{Closure, ClosureId, FrameId, OutOfMemory, PairId, Store, Symbol, Value};
use super::vocabulary::{Named, Vocabulary, nearest};
use super::{Imports, PROBLEMS_MAX, Place, Problem, Problems, Settings};

/// Most expressions evaluated in one run; the largest profile of macOS takes a few ten thousand.
const STEPS_MAX: usize = 2_000_000;

/// How many parts of lists, frames and texts may be looked at for one step. It bounds the time a run takes, and
/// the lists that are held while their parts are evaluated.
const WALKED_PER_STEP: usize = 4;

/// Deepest nesting of calls that are not in tail position.
const DEPTH_MAX: usize = 1_000;

/// Stack for [`DEPTH_MAX`] calls, in bytes, with room for builds without optimisation.
const STACK_BYTE: usize = 64 * 1024 * 1024;

/// Deepest nesting of imports.
const IMPORTS_MAX: usize = 16;

/// Why an expression has no value.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Place,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// Whether the whole run is over.
    pub(super) fatal: bool,
}

pub(super) type Answer = Result<Value, Box<Fault>>;

/// A fault at `at`.
pub(super) fn fault(at: &Place, message: impl Into<String>) -> Box<Fault> {
    Box::new(Fault {
        at: at.clone(),
        message: message.into(),
        hint: None,
        fatal: false,
    })
}

impl Fault {
    pub(super) fn hint(mut self: Box<Self>, hint: impl Into<String>) -> Box<Self> {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn fatal(mut self: Box<Self>) -> Box<Self> {
        self.fatal = true;
        self
    }
}

/// One run.
pub(super) struct Machine<'a> {
    pub(super) settings: &'a Settings,
    pub(super) vocabulary: &'static Vocabulary,
    pub(super) semantics: Semantics,
    pub(super) store: Store,
    pub(super) globals: FrameId,
    pub(super) rules: Vec<Rule>,
    pub(super) skipped: Vec<(Place, String)>,
    problems: Vec<Problem>,
    /// The conditions of the `with-filter`s around what is evaluated.
    pub(super) filters: Vec<Filter>,
    /// The modifiers of the `with-modifier`s around what is evaluated.
    pub(super) modifiers: Vec<Modifier>,
    pub(super) version: Option<i64>,
    importing: Vec<String>,
    steps: usize,
    pub(super) depth: usize,
}

/// Runs `text` to its rules.
pub(super) fn run(name: &str, text: &[u8], settings: &Settings) -> Result<Ruleset, Problems> {
    let file: Arc<str> = name.into();
    let run = || {
        let mut machine = Machine::new(settings);
        machine.load(&file, text);
        machine.finish(&file)
    };
    // On a thread of its own: how deep a profile nests is its own choice.
    thread::scope(|scope| {
        let spawned = thread::Builder::new()
            .stack_size(STACK_BYTE)
            .spawn_scoped(scope, run);
        let failed = |message: &str| {
            let at = Place {
                file: file.clone(),
                line: 1,
                column: 1,
            };
            Problems(vec![Problem {
                at,
                message: message.to_owned(),
                hint: None,
            }])
        };
        match spawned.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(failed("the evaluator failed")),
            Err(error) => Err(failed(&format!("no thread could be started for it: {error}"))),
        }
    })
}

impl<'a> Machine<'a> {
    fn new(settings: &'a Settings) -> Self {
        let (mut store, globals) = Store::new();
        for (name, _) in SPECIALS {
            store.symbol(name);
        }
        Self {
            settings,
            vocabulary: Vocabulary::of(settings.release),
            semantics: Semantics::of(settings.release),
            store,
            globals,
            rules: Vec::new(),
            skipped: Vec::new(),
            problems: Vec::new(),
            filters: Vec::new(),
            modifiers: Vec::new(),
            version: None,
            importing: Vec::new(),
            steps: 0,
            depth: 0,
        }
    }

    /// Evaluates every expression of `text`; whether the run may go on.
    fn load(&mut self, file: &Arc<str>, text: &[u8]) -> bool {
        let (forms, problems) = read(file, text);
        self.problems.extend(problems);
        let around = (self.filters.len(), self.modifiers.len(), self.depth);
        for form in forms {
            if self.problems.len() >= PROBLEMS_MAX {
                return false;
            }
            let value = self.store.intern(&form);
            let answer = value
                .map_err(|error| out_of_memory(&form.at, &error))
                .and_then(|value| self.eval(value, self.globals, form.at.clone()));
            if let Err(fault) = answer {
                // What was interrupted inside a `with-filter` does not go on there.
                self.filters.truncate(around.0);
                self.modifiers.truncate(around.1);
                self.depth = around.2;
                self.problems.push(Problem {
                    at: fault.at,
                    message: fault.message,
                    hint: fault.hint,
                });
                if fault.fatal {
                    return false;
                }
            }
        }
        true
    }

    fn finish(mut self, file: &Arc<str>) -> Result<Ruleset, Problems> {
        if self.version.is_none() && self.problems.is_empty() {
            self.problems.push(Problem {
                at: Place {
                    file: file.clone(),
                    line: 1,
                    column: 1,
                },
                message: "no version specified".to_owned(),
                hint: Some("a profile begins with `(version 1)`".to_owned()),
            });
        }
        self.problems.truncate(PROBLEMS_MAX);
        if self.problems.is_empty() {
            let version = self.version.unwrap_or(1);
            Ok(Ruleset::new(version, self.vocabulary, self.rules, self.skipped))
        } else {
            Err(Problems(self.problems))
        }
    }

    /// Evaluates the profile that an import names.
    pub(super) fn import(&mut self, name: &str, at: &Place) -> Answer {
        let Imports::Folders(folders) = &self.settings.imports else {
            self.take(size_of::<(Place, String)>() + name.len(), at)?;
            self.skipped.push((at.clone(), name.to_owned()));
            return Ok(Value::Unspecified);
        };
        if self.importing.iter().any(|open| open == name) {
            return Err(fault(at, format!("`{name}` imports itself")));
        }
        if self.importing.len() == IMPORTS_MAX {
            return Err(fault(
                at,
                format!("more than {IMPORTS_MAX} imports are open here"),
            ));
        }
        if name.split('/').any(|part| part == "..") {
            return Err(fault(at, format!("`{name}` leads out of the folder of imports")));
        }
        let relative = name.trim_start_matches('/');
        let found = folders
            .iter()
            .map(|folder| folder.join(relative))
            .find(|path| path.is_file());
        let Some(path) = found else {
            let hint = "name the folder that has it with --import-dir; on a Mac that is /System/Library/Sandbox/Profiles";
            return Err(fault(at, format!("there is no `{name}` to import")).hint(hint));
        };
        let text = super::read_file(&path)
            .map_err(|error| fault(at, format!("`{path}` cannot be read: {error}")))?;
        self.take(text.len(), at)?;
        self.importing.push(name.to_owned());
        let goes_on = self.load(&path.as_str().into(), &text);
        self.importing.pop();
        if goes_on {
            Ok(Value::Unspecified)
        } else {
            Err(fault(at, format!("`{name}` cannot be imported")).fatal())
        }
    }

    /// Whether what is evaluated stands in an imported profile.
    pub(super) fn is_importing(&self) -> bool {
        !self.importing.is_empty()
    }

    pub(super) fn eval(&mut self, expression: Value, env: FrameId, at: Place) -> Answer {
        self.deeper(&at)?;
        let answer = self.eval_tail(expression, env, at);
        self.depth -= 1;
        answer
    }

    /// Goes one call deeper, for whatever calls itself in the end; who called it comes back up.
    pub(super) fn deeper(&mut self, at: &Place) -> Result<(), Box<Fault>> {
        if self.depth == DEPTH_MAX {
            return Err(fault(at, format!("more than {DEPTH_MAX} calls are nested here"))
                .hint("a recursion that does not end?")
                .fatal());
        }
        self.depth += 1;
        Ok(())
    }

    /// Counts `byte` more bytes as taken.
    pub(super) fn take(&mut self, byte: usize, at: &Place) -> Result<(), Box<Fault>> {
        self.store.take(byte).map_err(|error| out_of_memory(at, &error))
    }

    /// Takes one step.
    pub(super) fn step(&mut self, at: &Place) -> Result<(), Box<Fault>> {
        self.steps += 1;
        if self.steps + self.store.walked() / WALKED_PER_STEP > STEPS_MAX {
            return Err(fault(at, format!("more than {STEPS_MAX} steps were taken")).fatal());
        }
        Ok(())
    }

    fn eval_tail(&mut self, mut expression: Value, mut env: FrameId, mut at: Place) -> Answer {
        loop {
            self.step(&at)?;
            let cell = match expression {
                Value::Symbol(name) => return self.value_of(name, env, &at),
                Value::Pair(cell) => cell,
                other => return Ok(other),
            };
            let next = match self.special_of(cell, env) {
                Some(special) => self.special(special, cell, env, &at)?,
                None => self.call(cell, env, &at)?,
            };
            match next {
                Next::Value(value) => return Ok(value),
                Next::Tail(next, frame, place) => (expression, env, at) = (next, frame, place),
            }
        }
    }

    /// The special form that a list is, unless the profile gave its name another meaning.
    fn special_of(&self, cell: PairId, env: FrameId) -> Option<Special> {
        let Value::Symbol(name) = self.store.pair(cell).car else {
            return None;
        };
        let (_, special) = SPECIALS.get(usize::try_from(name.0).ok()?)?;
        self.store.lookup(env, name).is_none().then_some(*special)
    }

    fn call(&mut self, cell: PairId, env: FrameId, at: &Place) -> Result<Next, Box<Fault>> {
        let pair = self.store.pair(cell).clone();
        let procedure = self.eval(pair.car, env, pair.at)?;
        if let Value::Macro(id) = procedure {
            let expanded = self.apply(Value::Closure(id), vec![Value::Pair(cell)], at)?;
            return Ok(Next::Tail(expanded, env, at.clone()));
        }
        let (parts, _) = self.store.parts(&pair.cdr);
        let mut arguments = Vec::with_capacity(parts.len());
        for (part, place) in parts {
            arguments.push(self.eval(part, env, place)?);
        }
        match procedure {
            Value::Closure(id) => {
                let (env, body) = self.enter(id, arguments, at)?;
                self.sequence(&body, env)
            }
            other => self.apply(other, arguments, at).map(Next::Value),
        }
    }

    /// Applies `procedure`.
    pub(super) fn apply(&mut self, procedure: Value, arguments: Vec<Value>, at: &Place) -> Answer {
        match procedure {
            Value::Closure(id) => {
                let (env, body) = self.enter(id, arguments, at)?;
                match self.sequence(&body, env)? {
                    Next::Value(value) => Ok(value),
                    Next::Tail(expression, env, at) => self.eval(expression, env, at),
                }
            }
            Value::Procedure(index) => {
                self.step(at)?;
                self.deeper(at)?;
                let answer = procedures::TABLE[index].1(self, arguments, at);
                self.depth -= 1;
                answer
            }
            Value::FilterName(id, shape) => self.filter(id, shape, &arguments, at),
            Value::Filter(filter) if arguments.is_empty() => Ok(Value::Filter(filter)),
            other => Err(fault(at, format!("{} cannot be called", self.store.kind(&other)))),
        }
    }

    /// A frame with the arguments of a call, and the body to evaluate in it.
    pub(super) fn enter(
        &mut self,
        id: ClosureId,
        arguments: Vec<Value>,
        at: &Place,
    ) -> Result<(FrameId, Value), Box<Fault>> {
        let Closure {
            parameters,
            rest,
            body,
            env,
        } = self.store.closure(id).clone();
        let fits =
            arguments.len() == parameters.len() || rest.is_some() && arguments.len() > parameters.len();
        if !fits {
            let message = format!(
                "{} arguments where {} are taken",
                arguments.len(),
                parameters.len()
            );
            return Err(fault(at, message));
        }
        let mut arguments = arguments.into_iter();
        let mut variables: Vec<_> = parameters.into_iter().zip(arguments.by_ref()).collect();
        if let Some(rest) = rest {
            let left: Vec<_> = arguments.collect();
            let list = self.store.list(left.into_iter(), Value::Nil, at);
            variables.push((rest, list.map_err(|error| out_of_memory(at, &error))?));
        }
        let frame = self.store.frame(env, variables);
        Ok((frame.map_err(|error| out_of_memory(at, &error))?, body))
    }

    /// Evaluates all but the last of a list of expressions; the last is in tail position.
    pub(super) fn sequence(&mut self, body: &Value, env: FrameId) -> Result<Next, Box<Fault>> {
        let (mut parts, _) = self.store.parts(body);
        let Some((last, place)) = parts.pop() else {
            return Ok(Next::Value(Value::Unspecified));
        };
        for (part, place) in parts {
            self.eval(part, env, place)?;
        }
        Ok(Next::Tail(last, env, place))
    }

    /// What a name means: a variable, a procedure, or a word of the vocabulary.
    pub(super) fn value_of(&mut self, name: Symbol, env: FrameId, at: &Place) -> Answer {
        match self.meaning(name, env, at)? {
            Some(value) => Ok(value),
            None => Err(self.unknown(&self.store.name(name), at)),
        }
    }

    /// The same, and `None` for a name that means nothing.
    pub(super) fn meaning(
        &mut self,
        name: Symbol,
        env: FrameId,
        at: &Place,
    ) -> Result<Option<Value>, Box<Fault>> {
        if let Some(value) = self.store.lookup(env, name) {
            return Ok(Some(value.clone()));
        }
        let text = self.store.name(name);
        if let Some(index) = procedures::index_of(&text) {
            return Ok(Some(Value::Procedure(index)));
        }
        match self.vocabulary.in_profile(&text) {
            Some(Named::Operation(id)) => return Ok(Some(Value::Operation(Some(id), name))),
            Some(Named::Dropped) => return Ok(Some(Value::Operation(None, name))),
            None => {}
        }
        if let Some((id, shape)) = self.vocabulary.filter_named(&text) {
            return Ok(Some(Value::FilterName(id, shape)));
        }
        if let Some(expression) = self.vocabulary.expression(&text) {
            let (forms, _) = read(&at.file, expression.as_bytes());
            let form = forms
                .first()
                .ok_or_else(|| fault(at, "the vocabulary is broken"))?;
            let value = self
                .store
                .intern(form)
                .map_err(|error| out_of_memory(at, &error))?;
            return self.eval(value, self.globals, at.clone()).map(Some);
        }
        if self.is_constant(&text) {
            return Ok(Some(Value::Symbol(name)));
        }
        Ok(None)
    }

    /// Whether `name` stands for itself: a value that some filter takes, or what looks like one of the lists that
    /// are not known in full.
    pub(super) fn is_constant(&self, name: &str) -> bool {
        let looks_constant = name.contains(|c: char| c.is_ascii_uppercase())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        self.vocabulary.is_constant(name) || matches!(name, "unix-socket" | "unix") || looks_constant
    }

    fn unknown(&self, name: &str, at: &Place) -> Box<Fault> {
        let release = self.vocabulary.release();
        if let Some(since) = self.vocabulary.since_when(name) {
            return fault(at, format!("`{name}` is not known to {release}"))
                .hint(format!("it came with macOS {since}"));
        }
        let known = procedures::TABLE.iter().map(|(name, _)| *name);
        let known = known.chain(SPECIALS.iter().map(|(name, _)| *name));
        let near = self.vocabulary.nearest(name).or_else(|| nearest(name, known));
        let unknown = fault(at, format!("`{name}` means nothing to {release}"));
        match near {
            Some(near) => unknown.hint(format!("did you mean `{near}`?")),
            None => unknown,
        }
    }
}

/// The fault of a run that takes too much memory.
pub(super) fn out_of_memory(at: &Place, _: &OutOfMemory) -> Box<Fault> {
    fault(at, "the profile takes too much memory").fatal()
}
