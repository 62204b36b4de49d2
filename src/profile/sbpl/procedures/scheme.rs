//! What the procedures of Scheme do with numbers, texts and lists.

use super::super::Place;
use super::super::eval::{Answer, Fault, Machine, fault, out_of_memory};
use super::super::value::Value;
use super::{list, text};

pub(super) fn is(_: &mut Machine<'_>, arguments: &[Value], at: &Place, test: fn(&Value) -> bool) -> Answer {
    match arguments {
        [value] => Ok(Value::Bool(test(value))),
        _ => Err(fault(at, "one value is taken here")),
    }
}

pub(super) fn same(machine: &mut Machine<'_>, arguments: &[Value], at: &Place) -> Answer {
    match arguments {
        [a, b] => Ok(Value::Bool(machine.equal(a, b))),
        _ => Err(fault(at, "two values are compared here")),
    }
}

fn number(machine: &Machine<'_>, value: &Value, at: &Place) -> Result<f64, Box<Fault>> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "profiles count ports and lengths")]
        Value::Int(number) => Ok(*number as f64),
        Value::Real(number) => Ok(*number),
        other => Err(fault(
            at,
            format!("a number is taken here, not {}", machine.store.kind(other)),
        )),
    }
}

pub(super) fn arithmetic(
    machine: &mut Machine<'_>,
    operator: char,
    arguments: &[Value],
    at: &Place,
) -> Answer {
    let whole: Option<Vec<i64>> = arguments
        .iter()
        .map(|argument| match argument {
            Value::Int(number) => Some(*number),
            _ => None,
        })
        .collect();
    if let Some(whole) = whole {
        let mut numbers = whole.iter().copied();
        let first = match operator {
            '*' => 1,
            '-' if whole.len() > 1 => numbers.next().unwrap_or_default(),
            _ => 0,
        };
        let result = numbers.try_fold(first, |sum, number| match operator {
            '*' => i64::checked_mul(sum, number),
            '-' => i64::checked_sub(sum, number),
            _ => i64::checked_add(sum, number),
        });
        return result
            .map(Value::Int)
            .ok_or_else(|| fault(at, "the number is too large"));
    }
    let mut numbers = Vec::with_capacity(arguments.len());
    for argument in arguments {
        numbers.push(number(machine, argument, at)?);
    }
    Ok(Value::Real(match operator {
        '*' => numbers.iter().product(),
        '-' => match numbers.split_first() {
            Some((first, rest)) if !rest.is_empty() => first - rest.iter().sum::<f64>(),
            _ => -numbers.iter().sum::<f64>(),
        },
        _ => numbers.iter().sum(),
    }))
}

pub(super) fn integers(arguments: &[Value], at: &Place, operation: fn(i64, i64) -> Option<i64>) -> Answer {
    match arguments {
        [Value::Int(a), Value::Int(b)] => operation(*a, *b)
            .map(Value::Int)
            .ok_or_else(|| fault(at, "there is no such number")),
        _ => Err(fault(at, "two whole numbers are taken here")),
    }
}

pub(super) fn compare(
    machine: &mut Machine<'_>,
    arguments: &[Value],
    at: &Place,
    holds: fn(std::cmp::Ordering) -> bool,
) -> Answer {
    let mut numbers = Vec::with_capacity(arguments.len());
    for argument in arguments {
        numbers.push(number(machine, argument, at)?);
    }
    Ok(Value::Bool(
        numbers.windows(2).all(|pair| holds(pair[0].total_cmp(&pair[1]))),
    ))
}

/// Compares a number with zero.
pub(super) fn sign(
    machine: &mut Machine<'_>,
    arguments: &[Value],
    at: &Place,
    holds: fn(std::cmp::Ordering) -> bool,
) -> Answer {
    match arguments {
        [value] => Ok(Value::Bool(holds(number(machine, value, at)?.total_cmp(&0.0)))),
        _ => Err(fault(at, "one number is taken here")),
    }
}

pub(super) fn extreme(
    machine: &mut Machine<'_>,
    arguments: &[Value],
    at: &Place,
    better: fn(std::cmp::Ordering) -> bool,
) -> Answer {
    let mut best: Option<(f64, Value)> = None;
    for argument in arguments {
        let number = number(machine, argument, at)?;
        if best
            .as_ref()
            .is_none_or(|(known, _)| better(number.total_cmp(known)))
        {
            best = Some((number, argument.clone()));
        }
    }
    best.map(|(_, value)| value)
        .ok_or_else(|| fault(at, "a number is missing"))
}

pub(super) fn compare_text(
    machine: &mut Machine<'_>,
    arguments: &[Value],
    at: &Place,
    holds: fn(std::cmp::Ordering) -> bool,
) -> Answer {
    let (a, b) = (
        text(machine, "a comparison", arguments, 0, at)?,
        text(machine, "a comparison", arguments, 1, at)?,
    );
    Ok(Value::Bool(holds(a.cmp(&b))))
}

/// Walks `steps`, `a` for car and `d` for cdr.
pub(super) fn path(machine: &mut Machine<'_>, arguments: &[Value], at: &Place, steps: &str) -> Answer {
    let mut value = arguments
        .first()
        .cloned()
        .ok_or_else(|| fault(at, "a list is missing"))?;
    for step in steps.chars() {
        let Value::Pair(id) = value else {
            return Err(fault(at, format!("{} has no parts", machine.store.kind(&value))));
        };
        let pair = machine.store.pair(id);
        value = if step == 'a' {
            pair.car.clone()
        } else {
            pair.cdr.clone()
        };
    }
    Ok(value)
}

/// The list without as many of its first parts as a number says.
pub(super) fn behind(machine: &mut Machine<'_>, arguments: &[Value], at: &Place) -> Answer {
    let [list, Value::Int(count)] = arguments else {
        return Err(fault(at, "a list and a number are taken here"));
    };
    let mut rest = list.clone();
    for _ in 0..*count {
        rest = path(machine, &[rest], at, "d")?;
    }
    Ok(rest)
}

pub(super) fn append(machine: &mut Machine<'_>, mut arguments: Vec<Value>, at: &Place) -> Answer {
    let Some(last) = arguments.pop() else {
        return Ok(Value::Nil);
    };
    let mut items = Vec::new();
    for argument in &arguments {
        machine.step(at)?;
        items.extend(machine.store.parts(argument).0.into_iter().map(|(part, _)| part));
    }
    let list = machine.store.list(items.into_iter(), last, at);
    list.map_err(|error| out_of_memory(at, &error))
}

pub(super) fn apply(machine: &mut Machine<'_>, mut arguments: Vec<Value>, at: &Place) -> Answer {
    if arguments.len() < 2 {
        return Err(fault(at, "apply takes a procedure and a list"));
    }
    let procedure = arguments.remove(0);
    let (spread, _) = machine.store.parts(&arguments.pop().unwrap_or(Value::Nil));
    arguments.extend(spread.into_iter().map(|(part, _)| part));
    machine.apply(procedure, arguments, at)
}

pub(super) fn map(machine: &mut Machine<'_>, mut arguments: Vec<Value>, at: &Place) -> Answer {
    if arguments.len() < 2 {
        return Err(fault(at, "a procedure and a list are taken here"));
    }
    let procedure = arguments.remove(0);
    let mut lists: Vec<Vec<Value>> = Vec::with_capacity(arguments.len());
    for argument in &arguments {
        machine.step(at)?;
        let (parts, _) = machine.store.parts(argument);
        lists.push(parts.into_iter().map(|(part, _)| part).collect());
    }
    let length = lists.iter().map(Vec::len).min().unwrap_or_default();
    let mut results = Vec::with_capacity(length);
    for index in 0..length {
        let row = lists.iter().map(|list| list[index].clone()).collect();
        results.push(machine.apply(procedure.clone(), row, at)?);
    }
    list(machine, results, at)
}

/// The rest of a list from the part that equals a value, or the part of it that begins with it.
pub(super) fn find(machine: &mut Machine<'_>, arguments: &[Value], at: &Place, pairs: bool) -> Answer {
    let [wanted, list] = arguments else {
        return Err(fault(at, "a value and a list are taken here"));
    };
    let mut rest = list.clone();
    while let Value::Pair(id) = rest {
        let pair = machine.store.pair(id).clone();
        let candidate = match (&pair.car, pairs) {
            (Value::Pair(inner), true) => machine.store.pair(*inner).car.clone(),
            (car, _) => car.clone(),
        };
        machine.step(at)?;
        if machine.equal(&candidate, wanted) {
            return Ok(if pairs { pair.car } else { rest });
        }
        rest = pair.cdr;
    }
    Ok(Value::Bool(false))
}
