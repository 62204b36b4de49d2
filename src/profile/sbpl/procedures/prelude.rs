//! Procedures that Apple's prelude adds to Scheme and that its profiles call.

use super::super::Place;
use super::super::eval::{Answer, Machine, fault};
use super::super::filter::Filter;
use super::super::value::{Value, is_true};
use super::{combine, list, path_ancestors, string, text};

/// The folders that any of several paths lies in.
pub(super) fn ancestors(machine: &mut Machine<'_>, arguments: Vec<Value>, at: &Place) -> Answer {
    if arguments.len() < 2 {
        return path_ancestors(machine, arguments, at);
    }
    let mut filters = Vec::with_capacity(arguments.len());
    for path in arguments {
        filters.push(path_ancestors(machine, vec![path], at)?);
    }
    combine(machine, "path-ancestors", &filters, at, Filter::Any)
}

/// `(_IO GROUP NUMBER)`: the number of a command for a file system or a device.
pub(super) fn io(machine: &mut Machine<'_>, arguments: &[Value], at: &Place) -> Answer {
    let group = text(machine, "_IO", arguments, 0, at)?.chars().next();
    match (group, arguments.get(1)) {
        (Some(group), Some(Value::Int(number))) => number
            .checked_add(256 * i64::from(u32::from(group)))
            .map(Value::Int)
            .ok_or_else(|| fault(at, "the number is too large")),
        _ => Err(fault(at, "_IO takes a letter and a number")),
    }
}

/// `(partition TEST LIST)`: the list of those that pass and the list of those that do not.
pub(super) fn partition(machine: &mut Machine<'_>, arguments: &[Value], at: &Place) -> Answer {
    let [test, items] = arguments else {
        return Err(fault(at, "partition takes a procedure and a list"));
    };
    let (mut passed, mut others) = (Vec::new(), Vec::new());
    for (item, place) in machine.store.parts(items).0 {
        let passes = machine.apply(test.clone(), vec![item.clone()], &place)?;
        if is_true(&passes) {
            passed.push(item);
        } else {
            others.push(item);
        }
    }
    let both = vec![list(machine, passed, at)?, list(machine, others, at)?];
    list(machine, both, at)
}

/// `(split-string TEXT SEPARATOR)`: the texts between the separators.
pub(super) fn split(machine: &mut Machine<'_>, arguments: &[Value], at: &Place) -> Answer {
    let whole = text(machine, "split-string", arguments, 0, at)?;
    let separator = text(machine, "split-string", arguments, 1, at)?;
    if separator.is_empty() {
        return Err(fault(at, "split-string needs a separator"));
    }
    let mut texts = Vec::new();
    for part in whole.split(&*separator) {
        texts.push(string(machine, part.to_owned(), at)?);
    }
    list(machine, texts, at)
}
