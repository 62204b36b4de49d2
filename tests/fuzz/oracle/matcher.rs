//! A second reading of regular expressions, slow and plain: which places of the text can an expression have
//! come to? It shares nothing with the engine.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

enum Node {
    Start,
    End,
    One(Set),
    Alternatives(Vec<Vec<Node>>),
    Repeated {
        node: Box<Node>,
        at_least_once: bool,
        at_most_once: bool,
    },
}

struct Set {
    inverted: bool,
    ranges: Vec<(char, char)>,
}

/// Whether `pattern` is found anywhere in `text`; `None` where it is no expression.
pub(crate) fn finds(pattern: &str, text: &str) -> Option<bool> {
    let mut chars = pattern.chars().peekable();
    let node = alternatives(&mut chars)?;
    if chars.next().is_some() {
        return None;
    }
    let text: Vec<char> = text.chars().collect();
    let everywhere = (0..=text.len()).collect();
    Some(!reached(&node, &text, everywhere).is_empty())
}

fn alternatives(chars: &mut Peekable<Chars<'_>>) -> Option<Node> {
    let mut all = vec![Vec::new()];
    loop {
        match chars.peek() {
            None | Some(')') => return Some(Node::Alternatives(all)),
            Some('|') => {
                chars.next();
                all.push(Vec::new());
            }
            Some(_) => {
                let node = repeated(chars)?;
                all.last_mut()?.push(node);
            }
        }
    }
}

fn repeated(chars: &mut Peekable<Chars<'_>>) -> Option<Node> {
    let node = single(chars)?;
    let Some(how) = chars.next_if(|c| matches!(c, '*' | '+' | '?')) else {
        return Some(node);
    };
    Some(Node::Repeated {
        node: Box::new(node),
        at_least_once: how == '+',
        at_most_once: how == '?',
    })
}

fn single(chars: &mut Peekable<Chars<'_>>) -> Option<Node> {
    let one = |c| {
        Node::One(Set {
            inverted: false,
            ranges: vec![(c, c)],
        })
    };
    Some(match chars.next()? {
        '^' => Node::Start,
        '$' => Node::End,
        '.' => Node::One(Set {
            inverted: true,
            ranges: vec![],
        }),
        '(' => {
            let inner = alternatives(chars)?;
            (chars.next()? == ')').then_some(inner)?
        }
        '[' => Node::One(set(chars)?),
        '\\' => one(chars.next()?),
        '*' | '+' | '?' | ')' | '{' | '}' => return None,
        c => one(c),
    })
}

fn set(chars: &mut Peekable<Chars<'_>>) -> Option<Set> {
    let inverted = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    let mut first = true;
    loop {
        let c = chars.next()?;
        if c == ']' && !first {
            return Some(Set { inverted, ranges });
        }
        first = false;
        if c == '[' && chars.peek() == Some(&':') {
            chars.next();
            let name: String = chars.by_ref().take_while(|c| *c != ':').collect();
            (chars.next()? == ']').then_some(())?;
            ranges.extend(named(&name)?);
            continue;
        }
        let from = if c == '\\' { chars.next()? } else { c };
        let mut ahead = chars.clone();
        if ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']') {
            chars.next();
            let c = chars.next()?;
            let to = if c == '\\' { chars.next()? } else { c };
            (from <= to).then_some(())?;
            ranges.push((from, to));
        } else {
            ranges.push((from, from));
        }
    }
}

fn named(name: &str) -> Option<Vec<(char, char)>> {
    Some(match name {
        "alnum" => vec![('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => vec![('A', 'Z'), ('a', 'z')],
        "digit" => vec![('0', '9')],
        "lower" => vec![('a', 'z')],
        "upper" => vec![('A', 'Z')],
        "xdigit" => vec![('0', '9'), ('A', 'F'), ('a', 'f')],
        "space" => vec![('\t', '\r'), (' ', ' ')],
        "punct" => vec![('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        _ => return None,
    })
}

/// The places behind `node` for a match that begins at one of `places`.
fn reached(node: &Node, text: &[char], places: BTreeSet<usize>) -> BTreeSet<usize> {
    match node {
        Node::Start => places.into_iter().filter(|place| *place == 0).collect(),
        Node::End => places.into_iter().filter(|place| *place == text.len()).collect(),
        Node::One(set) => places
            .into_iter()
            .filter(|place| text.get(*place).is_some_and(|c| set.has(*c)))
            .map(|place| place + 1)
            .collect(),
        Node::Alternatives(all) => all
            .iter()
            .flat_map(|parts| {
                parts
                    .iter()
                    .fold(places.clone(), |places, part| reached(part, text, places))
            })
            .collect(),
        Node::Repeated {
            node,
            at_least_once,
            at_most_once,
        } => {
            let once = reached(node, text, places.clone());
            let mut all = if *at_least_once {
                once.clone()
            } else {
                &places | &once
            };
            let mut last = once;
            while !at_most_once && !last.is_empty() {
                let next = reached(node, text, last);
                last = &next - &all;
                all = &all | &last;
            }
            all
        }
    }
}

impl Set {
    fn has(&self, c: char) -> bool {
        self.inverted != self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&c))
    }
}
