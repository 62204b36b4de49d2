//! Values of a running profile, and the store that holds what they are made of.
//!
//! Pairs, frames and closures live in the store until the run is over, and values name them by number. So
//! nothing has to be freed in order, however a profile nests them, and one figure bounds the memory of a run.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Place;
use super::filter::Filter;
use super::read::{Form, Kind};
use super::rules::Modifier;
use super::vocabulary::{FilterId, OperationId, Shape};

/// Most memory a run may take, in bytes, about.
const MEMORY_MAX_BYTE: usize = 64 * 1024 * 1024;

/// Most variables of a frame that are searched one by one.
const SEARCHED_MAX: usize = 16;

/// What an expression gives.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Nil,
    /// What is returned where nothing is meant to be.
    Unspecified,
    Bool(bool),
    Int(i64),
    Real(f64),
    Char(char),
    String(Arc<str>),
    Symbol(Symbol),
    Pair(PairId),
    Closure(ClosureId),
    Macro(ClosureId),
    /// A procedure of this program, by its place in the table.
    Procedure(usize),
    /// An operation, with the name it was written by.
    Operation(Option<OperationId>, Symbol),
    /// A filter that is not applied yet.
    FilterName(FilterId, Shape),
    Filter(Arc<Filter>),
    Modifier(Arc<Modifier>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Symbol(pub(super) u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PairId(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameId(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClosureId(u32);

/// A pair, with the place of its first part.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) car: Value,
    pub(super) cdr: Value,
    pub(super) at: Place,
}

/// A function of the profile's own.
#[derive(Debug, Clone)]
pub(super) struct Closure {
    pub(super) parameters: Vec<Symbol>,
    /// What takes the arguments beyond the parameters.
    pub(super) rest: Option<Symbol>,
    /// A list of expressions.
    pub(super) body: Value,
    pub(super) env: FrameId,
}

#[derive(Debug)]
struct Frame {
    outer: Option<FrameId>,
    variables: Vec<(Symbol, Value)>,
    /// Where each variable is, once they are many.
    index: Option<BTreeMap<Symbol, usize>>,
}

impl Frame {
    fn new(outer: Option<FrameId>, variables: Vec<(Symbol, Value)>) -> Self {
        let mut frame = Self {
            outer,
            variables,
            index: None,
        };
        frame.index_many();
        frame
    }

    /// Where the variable called `name` is; the first of that name counts.
    fn place_of(&self, name: Symbol) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&name).copied(),
            None => self.variables.iter().position(|(known, _)| *known == name),
        }
    }

    fn push(&mut self, name: Symbol, value: Value) {
        self.variables.push((name, value));
        match &mut self.index {
            Some(index) => {
                index.insert(name, self.variables.len() - 1);
            }
            None => self.index_many(),
        }
    }

    fn index_many(&mut self) {
        if self.variables.len() > SEARCHED_MAX {
            let places = self.variables.iter().enumerate().rev();
            let places = places.map(|(place, (name, _))| (*name, place));
            self.index = Some(places.collect());
        }
    }
}

/// The run needs more memory than it may have.
#[derive(Debug)]
pub(super) struct OutOfMemory;

/// Everything values are made of.
#[derive(Debug)]
pub(super) struct Store {
    names: Vec<Arc<str>>,
    symbols: BTreeMap<Arc<str>, Symbol>,
    pairs: Vec<Pair>,
    frames: Vec<Frame>,
    closures: Vec<Closure>,
    taken_byte: usize,
    /// How many parts of lists, frames and texts were looked at.
    walked: Cell<usize>,
}

impl Store {
    /// A store with one empty frame, for what is defined at the top.
    pub(super) fn new() -> (Self, FrameId) {
        let store = Self {
            names: Vec::new(),
            symbols: BTreeMap::new(),
            pairs: Vec::new(),
            frames: vec![Frame::new(None, Vec::new())],
            closures: Vec::new(),
            taken_byte: 0,
            walked: Cell::new(0),
        };
        (store, FrameId(0))
    }

    /// Counts `byte` more bytes as taken.
    pub(super) fn take(&mut self, byte: usize) -> Result<(), OutOfMemory> {
        self.taken_byte = self.taken_byte.saturating_add(byte);
        if self.taken_byte > MEMORY_MAX_BYTE {
            return Err(OutOfMemory);
        }
        Ok(())
    }

    /// Counts `parts` more parts of something as looked at.
    pub(super) fn walk(&self, parts: usize) {
        self.walked.set(self.walked.get().saturating_add(parts));
    }

    /// How many parts of lists, frames and texts were looked at.
    pub(super) fn walked(&self) -> usize {
        self.walked.get()
    }

    pub(super) fn symbol(&mut self, name: &str) -> Symbol {
        if let Some(symbol) = self.symbols.get(name) {
            return *symbol;
        }
        let symbol = Symbol(number(self.names.len()));
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        self.symbols.insert(name, symbol);
        symbol
    }

    pub(super) fn name(&self, symbol: Symbol) -> Arc<str> {
        self.names[index(symbol.0)].clone()
    }

    pub(super) fn pair(&self, id: PairId) -> &Pair {
        &self.pairs[index(id.0)]
    }

    pub(super) fn cons(&mut self, car: Value, cdr: Value, at: Place) -> Result<Value, OutOfMemory> {
        self.take(size_of::<Pair>())?;
        let id = PairId(number(self.pairs.len()));
        self.pairs.push(Pair { car, cdr, at });
        Ok(Value::Pair(id))
    }

    /// A list of `items`, in front of `tail`.
    pub(super) fn list(
        &mut self,
        items: impl DoubleEndedIterator<Item = Value>,
        tail: Value,
        at: &Place,
    ) -> Result<Value, OutOfMemory> {
        items
            .rev()
            .try_fold(tail, |rest, item| self.cons(item, rest, at.clone()))
    }

    /// The parts of a list with their places, and what stands behind the last.
    pub(super) fn parts(&self, list: &Value) -> (Vec<(Value, Place)>, Value) {
        let mut parts = Vec::new();
        let mut rest = list.clone();
        while let Value::Pair(id) = rest {
            let pair = self.pair(id);
            parts.push((pair.car.clone(), pair.at.clone()));
            rest = pair.cdr.clone();
            // Nothing here makes a list that ends in itself: pairs do not change.
        }
        self.walk(parts.len());
        (parts, rest)
    }

    pub(super) fn closure(&self, id: ClosureId) -> &Closure {
        &self.closures[index(id.0)]
    }

    pub(super) fn make_closure(&mut self, closure: Closure) -> Result<ClosureId, OutOfMemory> {
        self.take(size_of::<Closure>() + 4 * closure.parameters.len())?;
        self.closures.push(closure);
        Ok(ClosureId(number(self.closures.len() - 1)))
    }

    pub(super) fn frame(
        &mut self,
        outer: FrameId,
        variables: Vec<(Symbol, Value)>,
    ) -> Result<FrameId, OutOfMemory> {
        self.take(size_of::<Frame>() + variables.len() * size_of::<(Symbol, Value)>())?;
        self.frames.push(Frame::new(Some(outer), variables));
        Ok(FrameId(number(self.frames.len() - 1)))
    }

    pub(super) fn define(&mut self, env: FrameId, name: Symbol, value: Value) -> Result<(), OutOfMemory> {
        self.take(size_of::<(Symbol, Value)>())?;
        let frame = &mut self.frames[index(env.0)];
        match frame.place_of(name) {
            Some(place) => frame.variables[place].1 = value,
            None => frame.push(name, value),
        }
        Ok(())
    }

    /// Changes the innermost variable called `name`; whether there is one.
    pub(super) fn set(&mut self, env: FrameId, name: Symbol, value: Value) -> bool {
        let mut next = Some(env);
        while let Some(id) = next {
            let frame = &mut self.frames[index(id.0)];
            if let Some(place) = frame.place_of(name) {
                frame.variables[place].1 = value;
                return true;
            }
            next = frame.outer;
        }
        false
    }

    pub(super) fn lookup(&self, env: FrameId, name: Symbol) -> Option<&Value> {
        let mut next = Some(env);
        while let Some(id) = next {
            let frame = &self.frames[index(id.0)];
            if let Some(place) = frame.place_of(name) {
                return Some(&frame.variables[place].1);
            }
            self.walk(1);
            next = frame.outer;
        }
        None
    }

    /// A form as the value that `quote` gives and `eval` takes.
    pub(super) fn intern(&mut self, form: &Form) -> Result<Value, OutOfMemory> {
        Ok(match &form.kind {
            Kind::Symbol(name) => Value::Symbol(self.symbol(name)),
            Kind::String(text) => Value::String(text.clone()),
            Kind::Int(number) => Value::Int(*number),
            Kind::Real(number) => Value::Real(*number),
            Kind::Bool(truth) => Value::Bool(*truth),
            Kind::Char(c) => Value::Char(*c),
            Kind::List(items, tail) => {
                let mut list = match tail {
                    Some(tail) => self.intern(tail)?,
                    None => Value::Nil,
                };
                for item in items.iter().rev() {
                    let car = self.intern(item)?;
                    list = self.cons(car, list, item.at.clone())?;
                }
                list
            }
        })
    }

    /// What kind of value it is, with its article, for messages.
    pub(super) fn kind(&self, value: &Value) -> &'static str {
        match value {
            Value::Nil => "the empty list",
            Value::Unspecified => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Real(_) => "a number",
            Value::Char(_) => "a character",
            Value::String(_) => "a string",
            Value::Symbol(_) => "a symbol",
            Value::Pair(_) => "a list",
            Value::Closure(_) | Value::Procedure(_) | Value::FilterName(..) => "a procedure",
            Value::Macro(_) => "a macro",
            Value::Operation(..) => "an operation",
            Value::Filter(_) => "a filter",
            Value::Modifier(_) => "a modifier",
        }
    }
}

/// Whether `value` counts as true: everything but `#f` does.
pub(super) fn is_true(value: &Value) -> bool {
    !matches!(value, Value::Bool(false))
}

/// The number of the next of `length` things; memory ends long before numbers do.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
