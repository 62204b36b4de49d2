//! The procedures that profiles call: those of Scheme that they use, and those of Apple's prelude.

mod prelude;
mod scheme;

use std::sync::Arc;

use super::decide::Verdict;
use super::eval::{Answer, Fault, Machine, fault, out_of_memory};
use super::filter::{Filter, Pattern, Test};
use super::value::{Symbol, Value, is_true};
use super::vocabulary::Shape;
use super::{Place, Release};
use prelude::{ancestors, io, partition, split};
use scheme::{
    append, apply, arithmetic, behind, compare, compare_text, extreme, find, integers, is, map, path, same,
    sign,
};

/// Longest text a profile can put together, in bytes; a pattern of the kernel has at most 65535.
const STRING_MAX_BYTE: usize = 64 * 1024;

/// How many bytes of a text are looked at like one part of a list.
const TEXT_PER_PART: usize = 64;

/// A procedure.
type Procedure = fn(&mut Machine<'_>, Vec<Value>, &Place) -> Answer;

/// Every procedure, by name.
pub(super) const TABLE: [(&str, Procedure); 110] = [
    ("*", |m, a, at| arithmetic(m, '*', &a, at)),
    ("+", |m, a, at| arithmetic(m, '+', &a, at)),
    ("-", |m, a, at| arithmetic(m, '-', &a, at)),
    ("<", |m, a, at| compare(m, &a, at, |o| o.is_lt())),
    ("<=", |m, a, at| compare(m, &a, at, |o| o.is_le())),
    ("=", |m, a, at| compare(m, &a, at, |o| o.is_eq())),
    (">", |m, a, at| compare(m, &a, at, |o| o.is_gt())),
    (">=", |m, a, at| compare(m, &a, at, |o| o.is_ge())),
    ("_IO", |m, a, at| io(m, &a, at)),
    ("allow", |m, a, at| m.rule(Verdict::Allow, a, at)),
    ("append", append),
    ("apply", apply),
    ("assoc", |m, a, at| find(m, &a, at, true)),
    ("assq", |m, a, at| find(m, &a, at, true)),
    ("assv", |m, a, at| find(m, &a, at, true)),
    ("atom?", |m, a, at| {
        is(m, &a, at, |v| !matches!(v, Value::Pair(_)))
    }),
    ("boolean?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::Bool(_)))
    }),
    ("caadr", |m, a, at| path(m, &a, at, "daa")),
    ("caar", |m, a, at| path(m, &a, at, "aa")),
    ("cadar", |m, a, at| path(m, &a, at, "ada")),
    ("cadddr", |m, a, at| path(m, &a, at, "ddda")),
    ("caddr", |m, a, at| path(m, &a, at, "dda")),
    ("cadr", |m, a, at| path(m, &a, at, "da")),
    ("car", |m, a, at| path(m, &a, at, "a")),
    ("cdadr", |m, a, at| path(m, &a, at, "dad")),
    ("cdar", |m, a, at| path(m, &a, at, "ad")),
    ("cddar", |m, a, at| path(m, &a, at, "add")),
    ("cdddr", |m, a, at| path(m, &a, at, "ddd")),
    ("cddr", |m, a, at| path(m, &a, at, "dd")),
    ("cdr", |m, a, at| path(m, &a, at, "d")),
    ("char->integer", |_, a, at| match a.as_slice() {
        [Value::Char(c)] => Ok(Value::Int(i64::from(u32::from(*c)))),
        _ => Err(fault(at, "char->integer takes a character")),
    }),
    ("char=?", |_, a, at| match a.as_slice() {
        [Value::Char(a), Value::Char(b)] => Ok(Value::Bool(a == b)),
        _ => Err(fault(at, "char=? takes two characters")),
    }),
    ("char?", |m, a, at| is(m, &a, at, |v| matches!(v, Value::Char(_)))),
    ("cons", |m, a, at| match a.as_slice() {
        [car, cdr] => m
            .store
            .cons(car.clone(), cdr.clone(), at.clone())
            .map_err(|error| out_of_memory(at, &error)),
        _ => Err(fault(at, "cons takes two values")),
    }),
    ("debug", nothing),
    ("define-storage-class", nothing),
    ("defined?", |m, a, at| match a.as_slice() {
        [Value::Symbol(name)] => Ok(Value::Bool(m.meaning(*name, m.globals, at)?.is_some())),
        [_] => Ok(Value::Bool(true)),
        _ => Err(fault(at, "defined? takes a symbol")),
    }),
    ("deny", |m, a, at| m.rule(Verdict::Deny, a, at)),
    ("disable-callouts", nothing),
    ("disable-full-symbolication", nothing),
    ("display", nothing),
    ("eliminate-duplicate-rules", nothing),
    ("entitlement-value", |_, _, _| Ok(Value::Bool(false))),
    ("entitlement-value-regex", |_, _, _| Ok(Value::Bool(false))),
    ("eq?", |m, a, at| same(m, &a, at)),
    ("equal?", |m, a, at| same(m, &a, at)),
    ("eqv?", |m, a, at| same(m, &a, at)),
    ("error", |m, a, at| {
        let said: Vec<String> = a.iter().take(16).map(|value| m.shown(value)).collect();
        Err(fault(at, format!("the profile says: {}", said.join(" "))))
    }),
    ("even?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::Int(n) if n % 2 == 0))
    }),
    ("for-each", |m, a, at| map(m, a, at).map(|_| Value::Unspecified)),
    ("getenv", param),
    ("import", |m, a, at| {
        let name = text(m, "import", &a, 0, at)?;
        m.import(&name, at)
    }),
    ("integer?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::Int(_)))
    }),
    ("length", |m, a, at| {
        let list = a.first().ok_or_else(|| fault(at, "length takes a list"))?;
        let (parts, tail) = m.store.parts(list);
        match tail {
            Value::Nil => Ok(count(parts.len())),
            _ => Err(fault(at, "length takes a list")),
        }
    }),
    ("list", |m, a, at| list(m, a, at)),
    ("list->string", |m, a, at| {
        let (parts, _) = m.store.parts(a.first().unwrap_or(&Value::Nil));
        let text = parts.iter().filter_map(|(part, _)| match part {
            Value::Char(c) => Some(*c),
            _ => None,
        });
        let text = text.collect();
        string(m, text, at)
    }),
    ("list-ref", |m, a, at| {
        let rest = behind(m, &a, at)?;
        path(m, &[rest], at, "a")
    }),
    ("list-tail", |m, a, at| behind(m, &a, at)),
    ("list?", |m, a, at| {
        let (_, tail) = m
            .store
            .parts(a.first().ok_or_else(|| fault(at, "list? takes a value"))?);
        Ok(Value::Bool(matches!(tail, Value::Nil)))
    }),
    ("map", map),
    ("max", |m, a, at| extreme(m, &a, at, |o| o.is_gt())),
    ("member", |m, a, at| find(m, &a, at, false)),
    ("memq", |m, a, at| find(m, &a, at, false)),
    ("memv", |m, a, at| find(m, &a, at, false)),
    ("min", |m, a, at| extreme(m, &a, at, |o| o.is_lt())),
    ("modulo", |_, a, at| integers(&a, at, i64::checked_rem_euclid)),
    ("negative?", |m, a, at| sign(m, &a, at, |o| o.is_lt())),
    ("newline", nothing),
    ("not", |m, a, at| is(m, &a, at, |v| !is_true(v))),
    ("null?", |m, a, at| is(m, &a, at, |v| matches!(v, Value::Nil))),
    ("number->string", |m, a, at| {
        let number = a
            .first()
            .ok_or_else(|| fault(at, "number->string takes a number"))?;
        let shown = m.shown(number);
        string(m, shown, at)
    }),
    ("number?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::Int(_) | Value::Real(_)))
    }),
    ("odd?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::Int(n) if n % 2 != 0))
    }),
    ("pair?", |m, a, at| is(m, &a, at, |v| matches!(v, Value::Pair(_)))),
    ("param", param),
    ("partition", |m, a, at| partition(m, &a, at)),
    ("path-ancestors", ancestors),
    ("positive?", |m, a, at| sign(m, &a, at, |o| o.is_gt())),
    ("procedure?", |m, a, at| {
        is(m, &a, at, |v| {
            matches!(v, Value::Closure(_) | Value::Procedure(_) | Value::FilterName(..))
        })
    }),
    ("quotient", |_, a, at| integers(&a, at, i64::checked_div)),
    ("record", nothing),
    ("regex-quote", |m, a, at| {
        let quoted = text(m, "regex-quote", &a, 0, at)?
            .chars()
            .flat_map(|c| {
                (!c.is_alphanumeric() && c != '/' && c != '_')
                    .then_some('\\')
                    .into_iter()
                    .chain([c])
            })
            .collect();
        string(m, quoted, at)
    }),
    ("remainder", |_, a, at| integers(&a, at, i64::checked_rem)),
    ("require-all", |m, a, at| {
        combine(m, "require-all", &a, at, Filter::All)
    }),
    ("require-any", |m, a, at| {
        combine(m, "require-any", &a, at, Filter::Any)
    }),
    ("require-entitlement", |m, a, at| {
        let name = text(m, "require-entitlement", &a, 0, at)?;
        let text = format!("(require-entitlement {})", super::filter::quoted(&name));
        Ok(Value::Filter(Arc::new(Filter::Test(Test::Unheld { text }))))
    }),
    ("require-not", |m, a, at| {
        match filters(m, "require-not", &a, at)?.as_slice() {
            [filter] => m.combined(Filter::Not(Box::new(filter.clone())), at),
            _ => Err(fault(at, "require-not takes one filter")),
        }
    }),
    ("reverse", |m, a, at| {
        let (parts, _) = m.store.parts(a.first().unwrap_or(&Value::Nil));
        let reversed = parts.into_iter().rev().map(|(part, _)| part).collect();
        list(m, reversed, at)
    }),
    ("sbpl-filter?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::Filter(_)))
    }),
    ("sbpl-modifier?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::Modifier(_)))
    }),
    ("sbpl-operation?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::Operation(..)))
    }),
    ("split-string", |m, a, at| split(m, &a, at)),
    ("string->list", |m, a, at| {
        let chars = text(m, "string->list", &a, 0, at)?
            .chars()
            .map(Value::Char)
            .collect();
        list(m, chars, at)
    }),
    ("string->number", |m, a, at| {
        let number = text(m, "string->number", &a, 0, at)?.parse();
        Ok(number.map_or(Value::Bool(false), Value::Int))
    }),
    ("string->symbol", |m, a, at| {
        let name = text(m, "string->symbol", &a, 0, at)?;
        Ok(Value::Symbol(m.store.symbol(&name)))
    }),
    ("string-append", |m, a, at| {
        let mut joined = String::new();
        for index in 0..a.len() {
            joined.push_str(&text(m, "string-append", &a, index, at)?);
            check_length(&joined, at)?;
        }
        string(m, joined, at)
    }),
    ("string-length", |m, a, at| {
        Ok(count(text(m, "string-length", &a, 0, at)?.chars().count()))
    }),
    ("string-ref", |m, a, at| {
        let text = text(m, "string-ref", &a, 0, at)?;
        let c = index(&a, 1).and_then(|index| text.chars().nth(index));
        c.map(Value::Char)
            .ok_or_else(|| fault(at, "string-ref is beyond the end"))
    }),
    ("string<=?", |m, a, at| compare_text(m, &a, at, |o| o.is_le())),
    ("string<?", |m, a, at| compare_text(m, &a, at, |o| o.is_lt())),
    ("string=?", |m, a, at| compare_text(m, &a, at, |o| o.is_eq())),
    ("string>=?", |m, a, at| compare_text(m, &a, at, |o| o.is_ge())),
    ("string>?", |m, a, at| compare_text(m, &a, at, |o| o.is_gt())),
    ("string?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::String(_)))
    }),
    ("substring", |m, a, at| {
        let text: Vec<char> = text(m, "substring", &a, 0, at)?.chars().collect();
        let (start, end) = (
            index(&a, 1),
            if a.len() > 2 {
                index(&a, 2)
            } else {
                Some(text.len())
            },
        );
        let part = start.zip(end).and_then(|(start, end)| text.get(start..end));
        match part {
            Some(part) => string(m, part.iter().collect(), at),
            None => Err(fault(at, "substring is beyond the end")),
        }
    }),
    ("symbol->string", |m, a, at| match a.as_slice() {
        [Value::Symbol(name)] => Ok(Value::String(m.store.name(*name))),
        _ => Err(fault(at, "symbol->string takes a symbol")),
    }),
    ("symbol?", |m, a, at| {
        is(m, &a, at, |v| matches!(v, Value::Symbol(_)))
    }),
    ("trace", nothing),
    ("version", version),
    ("zero?", |m, a, at| is(m, &a, at, |v| matches!(v, Value::Int(0)))),
];

/// The place of the procedure called `name`.
pub(super) fn index_of(name: &str) -> Option<usize> {
    TABLE.binary_search_by(|(known, _)| (*known).cmp(name)).ok()
}

fn nothing(_: &mut Machine<'_>, _: Vec<Value>, _: &Place) -> Answer {
    Ok(Value::Unspecified)
}

fn version(machine: &mut Machine<'_>, arguments: Vec<Value>, at: &Place) -> Answer {
    // Others found that 2 compiles on macOS 14.4.1, and 2 and 3 on macOS 26. They allow less by themselves; how
    // much less is not known.
    let newest = match machine.settings.release {
        Release::MacOs10_15 => 1,
        Release::MacOs14 | Release::MacOs15 => 2,
        Release::MacOs26 => 3,
    };
    let version = match arguments.as_slice() {
        [Value::Int(version)] if (1..=newest).contains(version) => *version,
        _ => return Err(fault(at, "unsupported version").hint("write `(version 1)`")),
    };
    match machine.version {
        // Every profile of Apple's that others import says its version again. What one of another version does
        // to the profile around it is not known; the first is kept.
        Some(known) if known != version && !machine.is_importing() => {
            Err(fault(at, "only one version may be specified"))
        }
        Some(_) => Ok(Value::Unspecified),
        None => {
            machine.version = Some(version);
            Ok(Value::Unspecified)
        }
    }
}

/// `#f` for a parameter that is not given, as on a Mac; what uses it as a path then fails.
fn param(machine: &mut Machine<'_>, arguments: Vec<Value>, at: &Place) -> Answer {
    let name = text(machine, "param", &arguments, 0, at)?;
    let value = machine.settings.params.get(&*name);
    Ok(value.map_or(Value::Bool(false), |value| Value::String(value.as_str().into())))
}

/// The folders a path lies in, as literals.
fn path_ancestors(machine: &mut Machine<'_>, arguments: Vec<Value>, at: &Place) -> Answer {
    let path = text(machine, "path-ancestors", &arguments, 0, at)?;
    let ancestors = camino::Utf8Path::new(&path)
        .ancestors()
        .skip(1)
        .filter(|ancestor| !ancestor.as_str().is_empty());
    let mut filters = Vec::new();
    for ancestor in ancestors {
        let pattern = Pattern::new(Shape::Literal, ancestor.as_str()).map_err(|error| fault(at, error))?;
        machine.take(pattern.size_byte(), at)?;
        filters.push(Filter::Test(Test::Path(pattern)));
    }
    if filters.is_empty() {
        return Err(fault(at, format!("`{path}` lies in no folder")));
    }
    machine.combined(Filter::Any(filters), at)
}

fn combine(
    machine: &mut Machine<'_>,
    name: &str,
    arguments: &[Value],
    at: &Place,
    make: fn(Vec<Filter>) -> Filter,
) -> Answer {
    let filters = filters(machine, name, arguments, at)?;
    if filters.is_empty() {
        return Err(fault(at, format!("{name} needs filters")));
    }
    machine.combined(make(filters), at)
}

fn filters(
    machine: &mut Machine<'_>,
    name: &str,
    arguments: &[Value],
    at: &Place,
) -> Result<Vec<Filter>, Box<Fault>> {
    arguments
        .iter()
        .map(|argument| match argument {
            Value::Filter(filter) => {
                machine.take(filter.size_byte(), at)?;
                Ok((**filter).clone())
            }
            other => Err(fault(
                at,
                format!("{name} takes filters, not {}", machine.store.kind(other)),
            )),
        })
        .collect()
}

/// The text among the arguments at `index`.
fn text(
    machine: &Machine<'_>,
    name: &str,
    arguments: &[Value],
    index: usize,
    at: &Place,
) -> Result<Arc<str>, Box<Fault>> {
    match arguments.get(index) {
        Some(Value::String(text)) => {
            machine.store.walk(text.len() / TEXT_PER_PART);
            Ok(text.clone())
        }
        Some(Value::Bool(false)) => Err(fault(at, format!("{name} takes strings, not #f"))
            .hint("is a parameter not defined? give it with -D NAME=VALUE")),
        Some(other) => Err(fault(
            at,
            format!("{name} takes strings, not {}", machine.store.kind(other)),
        )),
        None => Err(fault(at, format!("{name} needs a string"))),
    }
}

fn string(machine: &mut Machine<'_>, text: String, at: &Place) -> Answer {
    check_length(&text, at)?;
    if text.contains('\0') {
        return Err(fault(at, "there is a NUL byte in a string"));
    }
    machine.take(text.len(), at)?;
    Ok(Value::String(text.into()))
}

/// Refuses a text that is longer than any of a profile.
pub(super) fn check_length(text: &str, at: &Place) -> Result<(), Box<Fault>> {
    if text.len() > STRING_MAX_BYTE {
        let message = format!("the string has more than {STRING_MAX_BYTE} bytes");
        return Err(fault(at, message));
    }
    Ok(())
}

/// Refuses a filter that nests too deep.
pub(super) fn check_depth(filter: &Filter, at: &Place) -> Result<(), Box<Fault>> {
    if filter.depth() > super::filter::DEPTH_MAX {
        let message = format!("more than {} filters are nested here", super::filter::DEPTH_MAX);
        return Err(fault(at, message));
    }
    Ok(())
}

fn list(machine: &mut Machine<'_>, items: Vec<Value>, at: &Place) -> Answer {
    let list = machine.store.list(items.into_iter(), Value::Nil, at);
    list.map_err(|error| out_of_memory(at, &error))
}

fn count(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn index(arguments: &[Value], at: usize) -> Option<usize> {
    match arguments.get(at) {
        Some(Value::Int(number)) => usize::try_from(*number).ok(),
        _ => None,
    }
}

impl Machine<'_> {
    /// Whether two values look the same; lists are compared to a bounded depth.
    pub(super) fn equal(&self, a: &Value, b: &Value) -> bool {
        let mut left = vec![(a.clone(), b.clone())];
        // Enough for every list a profile compares; more would be a way to spend time without steps.
        for _ in 0..100_000 {
            let Some((a, b)) = left.pop() else {
                return true;
            };
            self.store.walk(1);
            let alike = match (&a, &b) {
                (Value::Pair(a), Value::Pair(b)) if a != b => {
                    let (a, b) = (self.store.pair(*a), self.store.pair(*b));
                    left.push((a.cdr.clone(), b.cdr.clone()));
                    left.push((a.car.clone(), b.car.clone()));
                    true
                }
                (Value::Pair(_), Value::Pair(_)) | (Value::Nil, Value::Nil) => true,
                (Value::Bool(a), Value::Bool(b)) => a == b,
                (Value::Int(a), Value::Int(b)) => a == b,
                (Value::Real(a), Value::Real(b)) => a.total_cmp(b).is_eq(),
                (Value::Char(a), Value::Char(b)) => a == b,
                (Value::String(a), Value::String(b)) => {
                    self.store.walk(a.len() / TEXT_PER_PART);
                    a == b
                }
                (Value::Symbol(a), Value::Symbol(b)) => a == b,
                (Value::Operation(a, _), Value::Operation(b, _)) => a == b,
                (Value::Procedure(a), Value::Procedure(b)) => a == b,
                (Value::Closure(a), Value::Closure(b)) => a == b,
                _ => false,
            };
            if !alike {
                return false;
            }
        }
        false
    }

    /// A value as `display` would print it, without the inside of lists.
    pub(super) fn shown(&self, value: &Value) -> String {
        match value {
            Value::Bool(truth) => if *truth { "#t" } else { "#f" }.to_owned(),
            Value::Int(number) => number.to_string(),
            Value::Real(number) => number.to_string(),
            Value::Char(c) => c.to_string(),
            Value::String(text) => text.to_string(),
            Value::Symbol(name) | Value::Operation(_, name) => self.name_of(*name),
            other => self.store.kind(other).to_owned(),
        }
    }

    pub(super) fn name_of(&self, name: Symbol) -> String {
        self.store.name(name).to_string()
    }

    /// A combination of filters, unless it nests too deep.
    pub(super) fn combined(&mut self, filter: Filter, at: &Place) -> Answer {
        check_depth(&filter, at)?;
        self.take(filter.size_byte(), at)?;
        Ok(Value::Filter(Arc::new(filter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_the_search_in_it() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
