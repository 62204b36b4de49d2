//! Special forms: expressions that are not calls, because they do not evaluate all of their parts.

use std::sync::Arc;

use super::Place;
use super::eval::{Answer, Fault, Machine, fault, out_of_memory};
use super::rules::{MESSAGE_FILTER, Modifier};
use super::value::{Closure, ClosureId, FrameId, PairId, Value, is_true};

/// Expressions that are not calls. Their symbols are interned first, so that their number is their place here.
#[derive(Debug, Clone, Copy)]
pub(super) enum Special {
    Quote,
    Quasiquote,
    If,
    Cond,
    Case,
    And,
    Or,
    When,
    Unless,
    Begin,
    Define,
    Lambda,
    Let,
    LetStar,
    LetRec,
    Set,
    Macro,
    With,
    WithFilter,
    WithModifier,
    Do,
    MessageFilter,
}

/// The forms by name.
pub(super) const SPECIALS: [(&str, Special); 22] = [
    ("quote", Special::Quote),
    ("quasiquote", Special::Quasiquote),
    ("if", Special::If),
    ("cond", Special::Cond),
    ("case", Special::Case),
    ("and", Special::And),
    ("or", Special::Or),
    ("when", Special::When),
    ("unless", Special::Unless),
    ("begin", Special::Begin),
    ("define", Special::Define),
    ("lambda", Special::Lambda),
    ("let", Special::Let),
    ("let*", Special::LetStar),
    ("letrec", Special::LetRec),
    ("set!", Special::Set),
    ("macro", Special::Macro),
    ("with", Special::With),
    ("with-filter", Special::WithFilter),
    ("with-modifier", Special::WithModifier),
    ("do", Special::Do),
    ("apply-message-filter", Special::MessageFilter),
];

/// What comes of a special form: a value, or an expression in tail position.
pub(super) enum Next {
    Value(Value),
    Tail(Value, FrameId, Place),
}

impl Machine<'_> {
    pub(super) fn special(
        &mut self,
        special: Special,
        cell: PairId,
        env: FrameId,
        at: &Place,
    ) -> Result<Next, Box<Fault>> {
        let rest = self.store.pair(cell).cdr.clone();
        let (parts, _) = self.store.parts(&rest);
        let value = match special {
            Special::Quote => match parts.first() {
                Some((value, _)) => value.clone(),
                None => return Err(fault(at, "quote needs an expression")),
            },
            Special::Quasiquote => match parts.first() {
                Some((template, place)) => self.quasiquote(template, env, place)?,
                None => return Err(fault(at, "quasiquote needs an expression")),
            },
            Special::If => return self.branch(&parts, env, at),
            Special::When | Special::Unless => {
                let Some((condition, place)) = parts.first() else {
                    return Err(fault(at, "a condition is missing"));
                };
                let met = is_true(&self.eval(condition.clone(), env, place.clone())?);
                if met != matches!(special, Special::When) {
                    return Ok(Next::Value(Value::Nil));
                }
                return self.sequence(&self.behind(&rest), env);
            }
            Special::Cond => return self.cond(&parts, env, at),
            Special::Case => return self.case(&parts, env, at),
            Special::And | Special::Or => {
                let stop = matches!(special, Special::Or);
                let Some(((last, place), others)) = parts.split_last() else {
                    return Ok(Next::Value(Value::Bool(!stop)));
                };
                for (part, place) in others {
                    let value = self.eval(part.clone(), env, place.clone())?;
                    if is_true(&value) == stop {
                        return Ok(Next::Value(value));
                    }
                }
                return Ok(Next::Tail(last.clone(), env, place.clone()));
            }
            Special::Begin => return self.sequence(&rest, env),
            Special::Define => self.define(&rest, env, at)?,
            Special::Lambda => {
                let Some((parameters, place)) = parts.first() else {
                    return Err(fault(at, "lambda needs parameters"));
                };
                let body = self.behind(&rest);
                Value::Closure(self.lambda(parameters, body, env, place)?)
            }
            Special::Let | Special::LetStar | Special::LetRec => {
                return self.bindings(special, &rest, env, at);
            }
            Special::Set => {
                let [(Value::Symbol(name), _), (value, place)] = parts.as_slice() else {
                    return Err(fault(at, "set! takes a name and a value"));
                };
                let value = self.eval(value.clone(), env, place.clone())?;
                if !self.store.set(env, *name, value.clone()) {
                    // A profile may put functions of its own in front of `allow`, as the prelude does.
                    self.value_of(*name, env, at)
                        .map_err(|_| fault(at, format!("`{}` is not defined", self.store.name(*name))))?;
                    let defined = self.store.define(self.globals, *name, value);
                    defined.map_err(|error| out_of_memory(at, &error))?;
                }
                Value::Unspecified
            }
            Special::Macro => self.define_macro(&rest, env, at)?,
            Special::With => self.modifier(&parts, env, at)?,
            Special::WithFilter | Special::WithModifier => self.around(special, &parts, env, at)?,
            Special::Do => self.iterate(&parts, env, at)?,
            Special::MessageFilter => {
                // Its rules are about single messages of a connection that the rule around it allows.
                let count = self.rules.len();
                for (part, place) in parts {
                    self.eval(part, env, place)?;
                }
                self.rules.truncate(count);
                Value::Modifier(Arc::new(Modifier {
                    name: MESSAGE_FILTER.to_owned(),
                    argument: None,
                }))
            }
        };
        Ok(Next::Value(value))
    }

    /// The list without its first part.
    fn behind(&self, list: &Value) -> Value {
        match list {
            Value::Pair(id) => self.store.pair(*id).cdr.clone(),
            other => other.clone(),
        }
    }

    /// What is not chosen is the empty list here, as for `when`, `cond` and `case`: TinyScheme has it so.
    fn branch(&mut self, parts: &[(Value, Place)], env: FrameId, at: &Place) -> Result<Next, Box<Fault>> {
        let ([(condition, place), _] | [(condition, place), _, _]) = parts else {
            return Err(fault(at, "if takes a condition and one or two expressions"));
        };
        let met = is_true(&self.eval(condition.clone(), env, place.clone())?);
        Ok(match parts.get(if met { 1 } else { 2 }) {
            Some((expression, place)) => Next::Tail(expression.clone(), env, place.clone()),
            None => Next::Value(Value::Nil),
        })
    }

    fn cond(&mut self, clauses: &[(Value, Place)], env: FrameId, at: &Place) -> Result<Next, Box<Fault>> {
        let (arrow, otherwise) = (self.store.symbol("=>"), self.store.symbol("else"));
        for (clause, place) in clauses {
            let (parts, _) = self.store.parts(clause);
            let Some((condition, condition_at)) = parts.first() else {
                return Err(fault(place, "a clause of cond is a list"));
            };
            let is_else = matches!(condition, Value::Symbol(name) if *name == otherwise);
            let value = if is_else {
                Value::Bool(true)
            } else {
                self.eval(condition.clone(), env, condition_at.clone())?
            };
            if !is_true(&value) {
                continue;
            }
            return match parts.get(1) {
                None => Ok(Next::Value(value)),
                Some((Value::Symbol(name), _)) if *name == arrow => {
                    let Some((receiver, receiver_at)) = parts.get(2) else {
                        return Err(fault(place, "nothing follows this `=>`"));
                    };
                    let receiver = self.eval(receiver.clone(), env, receiver_at.clone())?;
                    self.apply(receiver, vec![value], at).map(Next::Value)
                }
                Some(_) => self.sequence(&self.behind(clause), env),
            };
        }
        Ok(Next::Value(Value::Nil))
    }

    fn case(&mut self, parts: &[(Value, Place)], env: FrameId, at: &Place) -> Result<Next, Box<Fault>> {
        let Some(((key, key_at), clauses)) = parts.split_first() else {
            return Err(fault(at, "case needs a key"));
        };
        let key = self.eval(key.clone(), env, key_at.clone())?;
        let otherwise = self.store.symbol("else");
        for (clause, place) in clauses {
            let Value::Pair(id) = clause else {
                return Err(fault(place, "a clause of case is a list"));
            };
            let data = self.store.pair(*id).car.clone();
            let is_else = matches!(data, Value::Symbol(name) if name == otherwise);
            let (members, _) = self.store.parts(&data);
            let mut chosen = is_else;
            for (member, _) in members {
                self.step(place)?;
                chosen |= self.equal(&member, &key);
            }
            if chosen {
                return self.sequence(&self.behind(clause), env);
            }
        }
        Ok(Next::Value(Value::Nil))
    }

    fn define(&mut self, rest: &Value, env: FrameId, at: &Place) -> Answer {
        let Value::Pair(cell) = rest else {
            return Err(fault(at, "define needs a name"));
        };
        let pair = self.store.pair(*cell).clone();
        let (name, value) = match pair.car {
            Value::Symbol(name) => {
                let (parts, _) = self.store.parts(&pair.cdr);
                let value = match parts.first() {
                    Some((value, place)) => self.eval(value.clone(), env, place.clone())?,
                    None => Value::Unspecified,
                };
                (name, value)
            }
            Value::Pair(signature) => {
                let signature = self.store.pair(signature).clone();
                let Value::Symbol(name) = signature.car else {
                    return Err(fault(at, "define needs a name"));
                };
                let closure = self.lambda(&signature.cdr, pair.cdr, env, &pair.at)?;
                (name, Value::Closure(closure))
            }
            _ => return Err(fault(&pair.at, "define needs a name")),
        };
        self.store
            .define(env, name, value)
            .map_err(|error| out_of_memory(at, &error))?;
        Ok(Value::Symbol(name))
    }

    fn lambda(
        &mut self,
        parameters: &Value,
        body: Value,
        env: FrameId,
        at: &Place,
    ) -> Result<ClosureId, Box<Fault>> {
        let (parts, tail) = self.store.parts(parameters);
        let mut names = Vec::with_capacity(parts.len());
        for (part, place) in parts {
            let Value::Symbol(name) = part else {
                return Err(fault(&place, "a parameter is a name"));
            };
            names.push(name);
        }
        let rest = match tail {
            Value::Symbol(name) => Some(name),
            Value::Nil => None,
            _ => return Err(fault(at, "a parameter is a name")),
        };
        let closure = Closure {
            parameters: names,
            rest,
            body,
            env,
        };
        self.store
            .make_closure(closure)
            .map_err(|error| out_of_memory(at, &error))
    }

    fn bindings(
        &mut self,
        special: Special,
        rest: &Value,
        env: FrameId,
        at: &Place,
    ) -> Result<Next, Box<Fault>> {
        let Value::Pair(cell) = rest else {
            return Err(fault(at, "let needs bindings"));
        };
        let first = self.store.pair(*cell).clone();
        let (loop_name, bindings, body) = match (first.car, special) {
            (Value::Symbol(name), Special::Let) => {
                let Value::Pair(cell) = first.cdr else {
                    return Err(fault(at, "let needs bindings"));
                };
                let second = self.store.pair(cell).clone();
                (Some(name), second.car, second.cdr)
            }
            (bindings, _) => (None, bindings, first.cdr),
        };
        let new_frame = |machine: &mut Self, outer, variables| {
            let frame = machine.store.frame(outer, variables);
            frame.map_err(|error| out_of_memory(at, &error))
        };
        let nested = !matches!(special, Special::Let);
        let inner = if nested {
            new_frame(self, env, Vec::new())?
        } else {
            env
        };
        let mut variables = Vec::new();
        for (binding, place) in self.store.parts(&bindings).0 {
            let (parts, _) = self.store.parts(&binding);
            let (Some((Value::Symbol(name), _)), true) = (parts.first(), parts.len() <= 2) else {
                return Err(fault(&place, "a binding is a name and a value"));
            };
            let value = match parts.get(1) {
                Some((value, place)) => self.eval(value.clone(), inner, place.clone())?,
                None => Value::Unspecified,
            };
            if nested {
                // let* evaluates one behind the other; letrec's functions find each other in the same frame.
                let defined = self.store.define(inner, *name, value);
                defined.map_err(|error| out_of_memory(at, &error))?;
            } else {
                variables.push((*name, value));
            }
        }
        if nested {
            return self.sequence(&body, inner);
        }
        let Some(name) = loop_name else {
            let inner = new_frame(self, env, variables)?;
            return self.sequence(&body, inner);
        };
        let (parameters, arguments): (Vec<_>, Vec<_>) = variables.into_iter().unzip();
        let around = new_frame(self, env, Vec::new())?;
        let closure = self.store.make_closure(Closure {
            parameters,
            rest: None,
            body,
            env: around,
        });
        let closure = closure.map_err(|error| out_of_memory(at, &error))?;
        let defined = self.store.define(around, name, Value::Closure(closure));
        defined.map_err(|error| out_of_memory(at, &error))?;
        let (inner, body) = self.enter(closure, arguments, at)?;
        self.sequence(&body, inner)
    }

    /// `(do ((NAME FIRST NEXT)…) (END RESULT…) BODY…)`
    fn iterate(&mut self, parts: &[(Value, Place)], env: FrameId, at: &Place) -> Answer {
        let [(bindings, _), (end, end_at), body @ ..] = parts else {
            return Err(fault(at, "do needs variables and an end"));
        };
        let (mut names, mut values, mut nexts) = (Vec::new(), Vec::new(), Vec::new());
        for (binding, place) in self.store.parts(bindings).0 {
            let (parts, _) = self.store.parts(&binding);
            let [(Value::Symbol(name), _), (first, first_at), next @ ..] = parts.as_slice() else {
                return Err(fault(
                    &place,
                    "a variable of do is a name, a value and the next value",
                ));
            };
            names.push(*name);
            values.push(self.eval(first.clone(), env, first_at.clone())?);
            nexts.push(next.first().cloned());
        }
        let (end, _) = self.store.parts(end);
        let Some(((condition, condition_at), results)) = end.split_first() else {
            return Err(fault(end_at, "do needs a condition for its end"));
        };
        loop {
            let variables = names.iter().copied().zip(values).collect();
            let frame = self.store.frame(env, variables);
            let frame = frame.map_err(|error| out_of_memory(at, &error))?;
            if is_true(&self.eval(condition.clone(), frame, condition_at.clone())?) {
                let mut value = Value::Unspecified;
                for (result, place) in results {
                    value = self.eval(result.clone(), frame, place.clone())?;
                }
                return Ok(value);
            }
            for (part, place) in body {
                self.eval(part.clone(), frame, place.clone())?;
            }
            values = Vec::with_capacity(names.len());
            for (name, next) in names.iter().zip(&nexts) {
                values.push(match next {
                    Some((next, place)) => self.eval(next.clone(), frame, place.clone())?,
                    None => self.value_of(*name, frame, at)?,
                });
            }
        }
    }

    /// `(macro (NAME FORM) BODY…)` or `(macro NAME FUNCTION)`, as TinyScheme has them: not hygienic.
    fn define_macro(&mut self, rest: &Value, env: FrameId, at: &Place) -> Answer {
        let Value::Pair(cell) = rest else {
            return Err(fault(at, "macro needs a name"));
        };
        let pair = self.store.pair(*cell).clone();
        let (name, closure) = match pair.car {
            Value::Pair(signature) => {
                let signature = self.store.pair(signature).clone();
                let Value::Symbol(name) = signature.car else {
                    return Err(fault(at, "macro needs a name"));
                };
                (name, self.lambda(&signature.cdr, pair.cdr, env, &pair.at)?)
            }
            Value::Symbol(name) => {
                let function = match self.store.parts(&pair.cdr).0.into_iter().next() {
                    Some((function, place)) => self.eval(function, env, place)?,
                    None => Value::Unspecified,
                };
                let Value::Closure(closure) = function else {
                    return Err(fault(at, "a macro is a function of its form"));
                };
                (name, closure)
            }
            _ => return Err(fault(&pair.at, "macro needs a name")),
        };
        let defined = self.store.define(env, name, Value::Macro(closure));
        defined.map_err(|error| out_of_memory(at, &error))?;
        Ok(Value::Symbol(name))
    }

    /// Evaluates the rest inside a `with-filter` or a `with-modifier`.
    fn around(&mut self, special: Special, parts: &[(Value, Place)], env: FrameId, at: &Place) -> Answer {
        let Some(((condition, place), body)) = parts.split_first() else {
            return Err(fault(at, "a filter or a modifier is missing"));
        };
        let value = self.eval(condition.clone(), env, place.clone())?;
        let counts = (self.filters.len(), self.modifiers.len());
        match (special, value) {
            (Special::WithModifier, Value::Modifier(modifier)) => {
                self.take(modifier.size_byte(), at)?;
                self.modifiers.push((*modifier).clone());
            }
            (Special::WithFilter, Value::Filter(filter)) => {
                self.take(filter.size_byte(), at)?;
                self.filters.push((*filter).clone());
            }
            (_, other) => {
                return Err(fault(
                    place,
                    format!("this is {} and not what the form takes", self.store.kind(&other)),
                ));
            }
        }
        let mut result = Ok(Value::Unspecified);
        for (part, place) in body {
            result = self.eval(part.clone(), env, place.clone());
            if result.is_err() {
                break;
            }
        }
        self.filters.truncate(counts.0);
        self.modifiers.truncate(counts.1);
        result
    }

    fn quasiquote(&mut self, template: &Value, env: FrameId, at: &Place) -> Answer {
        self.deeper(at)?;
        let list = self.filled_in(template, env);
        self.depth -= 1;
        list
    }

    fn filled_in(&mut self, template: &Value, env: FrameId) -> Answer {
        let (unquote, splice) = (
            self.store.symbol("unquote"),
            self.store.symbol("unquote-splicing"),
        );
        let (parts, tail) = self.store.parts(template);
        if parts.is_empty() {
            return Ok(template.clone());
        }
        if let [(Value::Symbol(name), _), (expression, place)] = parts.as_slice()
            && *name == unquote
        {
            return self.eval(expression.clone(), env, place.clone());
        }
        let mut list = tail;
        for (part, place) in parts.into_iter().rev() {
            let (inner, _) = self.store.parts(&part);
            if let [(Value::Symbol(name), _), (expression, expression_at)] = inner.as_slice()
                && *name == splice
            {
                let spliced = self.eval(expression.clone(), env, expression_at.clone())?;
                let (items, _) = self.store.parts(&spliced);
                let items: Vec<Value> = items.into_iter().map(|(item, _)| item).collect();
                let joined = self.store.list(items.into_iter(), list, &place);
                list = joined.map_err(|error| out_of_memory(&place, &error))?;
                continue;
            }
            let item = self.quasiquote(&part, env, &place)?;
            let joined = self.store.cons(item, list, place.clone());
            list = joined.map_err(|error| out_of_memory(&place, &error))?;
        }
        Ok(list)
    }
}
