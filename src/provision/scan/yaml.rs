//! YAML whose nodes know their lines.
//!
//! A tree of our own, not the library's: it bounds depth and the size after aliases are replaced, so that no file
//! makes us run out of stack, memory or patience, and it can tell the line of a file for each line of a script.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::ScanError;

/// The most bytes a file may have, and a file with its aliases replaced. GitHub allows 512 KiB.
const SIZE_MAX: usize = 1 << 20;
/// The most levels of lists and mappings. A step's `with:` is on the sixth.
const DEPTH_MAX: usize = 64;

/// A node and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    /// Line, from 1.
    pub(super) line: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scalar(Scalar),
    List(Vec<Rc<Node>>),
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

#[derive(Debug)]
struct Scalar {
    text: String,
    style: ScalarStyle,
    /// Characters before it in its line.
    column: usize,
    /// Whether it goes on in the next line.
    has_many_lines: bool,
}

/// The text of a script and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// What the shell gets, except that lines which YAML would have joined are still apart, as shells do it.
    pub(super) text: String,
    first: usize,
    /// Whether each line of the text is one of the file's, or all of them are the first.
    is_by_line: bool,
}

impl Script {
    /// The file's line of the text's line `index`, from 0.
    pub(super) fn line(&self, index: usize) -> usize {
        if self.is_by_line {
            self.first + index
        } else {
            self.first
        }
    }
}

impl Node {
    /// The text, if this is a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(&scalar.text),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The elements, if this is a list.
    pub(super) fn items(&self) -> &[Rc<Self>] {
        match &self.kind {
            Kind::List(items) => items,
            Kind::Scalar(_) | Kind::Map(_) => &[],
        }
    }

    /// The keys and values, if this is a mapping; without those whose key is no scalar.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Self)> {
        let entries = match &self.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Scalar(_) | Kind::List(_) => &[],
        };
        entries
            .iter()
            .filter_map(|(key, value)| Some((key.text()?, value.as_ref())))
    }

    /// The value of `key`, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let mut entries = self.entries();
        entries.find_map(|(name, value)| (name == key).then_some(value))
    }

    /// The text of the value of `key`.
    pub(super) fn get_text(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// The scalar as a script, whose lines are among `lines`, all of the file's.
    pub(super) fn script(&self, lines: &[&str]) -> Option<Script> {
        let Kind::Scalar(scalar) = &self.kind else {
            return None;
        };
        let text = &scalar.text;
        // The parser lets a block begin with its first line that is not empty.
        let empty = text.len() - text.trim_start_matches('\n').len();
        let (first, skip) = match scalar.style {
            ScalarStyle::Literal | ScalarStyle::Folded => (self.line.saturating_sub(empty).max(1), 0),
            ScalarStyle::Plain => (self.line, scalar.column),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => (self.line, scalar.column + 1),
        };
        let unfolded = match scalar.style {
            ScalarStyle::Literal => Some(text.clone()),
            // Looking for each of the many scalars that one line can have would take forever.
            _ if !scalar.has_many_lines => None,
            ScalarStyle::Folded
            | ScalarStyle::Plain
            | ScalarStyle::SingleQuoted
            | ScalarStyle::DoubleQuoted => unfold(text, lines.get(first - 1..).unwrap_or_default(), skip),
        };
        Some(Script {
            first,
            is_by_line: unfolded.is_some(),
            text: unfolded.unwrap_or_else(|| text.clone()),
        })
    }

    /// Bytes and nodes below and including this one, and the levels of them.
    fn measure(&self) -> (usize, usize) {
        let of_all = |nodes: &mut dyn Iterator<Item = &Rc<Self>>| {
            nodes
                .map(|node| node.measure())
                .fold((1, 0), |(size, depth), (more, deeper)| {
                    (size + more, depth.max(deeper))
                })
        };
        let (size, depth) = match &self.kind {
            Kind::Scalar(scalar) => (1 + scalar.text.len(), 0),
            Kind::List(items) => of_all(&mut items.iter()),
            Kind::Map(entries) => of_all(&mut entries.iter().flat_map(|(key, value)| [key, value])),
        };
        (size, depth + 1)
    }
}

/// `text` with the line breaks that YAML has made spaces written as a shell's, given that it stands in `lines` after
/// the first `skip` characters. None if it does not stand there word for word, as in quotes with escapes.
fn unfold(text: &str, lines: &[&str], skip: usize) -> Option<String> {
    let (first, lines) = lines.split_first()?;
    let mut lines = lines.iter();
    let mut here = &first[first.char_indices().nth(skip).map_or(first.len(), |(at, _)| at)..];
    let mut unfolded = String::with_capacity(text.len());
    let mut gap = "";
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.split(char::is_whitespace).next().unwrap_or_default();
        rest = &rest[word.len()..];
        let next_gap = &rest[..rest.len() - rest.trim_start().len()];
        rest = &rest[next_gap.len()..];
        let mut breaks = 0;
        here = here.trim_start();
        while here.is_empty() && !word.is_empty() {
            here = lines.next()?.trim_start();
            breaks += 1;
        }
        here = here.strip_prefix(word)?;
        match (breaks, gap.contains('\n')) {
            (0, true) => return None,
            (0, false) => unfolded.push_str(gap),
            (_, true) => unfolded.push_str(&"\n".repeat(breaks)),
            // A shell takes a line that ends like this for one with the next, as YAML has.
            (_, false) => unfolded.push_str(&[" ", &"\\\n".repeat(breaks)].concat()),
        }
        unfolded.push_str(word);
        gap = next_gap;
    }
    Some(unfolded)
}

/// The file's content: its first document.
///
/// # Errors
/// Says where it is not YAML, too deep or too large.
pub(super) fn parse(file: &str, text: &str) -> Result<Rc<Node>, ScanError> {
    let mut loader = Loader {
        file,
        size: text.len(),
        open: Vec::new(),
        anchors: BTreeMap::new(),
    };
    loader.grow(0)?;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| not_yaml(file, text, &error))?;
        if let Some(root) = loader.take(event, span)? {
            return Ok(root);
        }
    }
    Err(ScanError::NotAWorkflow {
        file: file.to_owned(),
        line: 1,
    })
}

fn not_yaml(file: &str, text: &str, error: &saphyr_parser::ScanError) -> ScanError {
    let line = error.marker().line();
    // Which of the two lines is told depends on what the tab stands before.
    let near = text.lines().skip(line.saturating_sub(2)).take(2);
    let has_tab = near
        .map(|line| &line[..line.len() - line.trim_start().len()])
        .any(|indentation| indentation.contains('\t'));
    ScanError::Yaml {
        file: file.to_owned(),
        line,
        problem: error.info().to_owned(),
        hint: if has_tab {
            "indent with spaces; YAML has no tabs there"
        } else {
            "GitHub would refuse it as well; a linter of YAML tells more"
        },
    }
}

/// Builds the tree from what the parser meets.
struct Loader<'a> {
    file: &'a str,
    /// Bytes of the file, and of what its aliases stand for.
    size: usize,
    /// Lists and mappings that have begun, outermost first.
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
}

/// A list or mapping that has not ended.
struct Open {
    node: Node,
    anchor: usize,
    /// In a mapping, the key whose value comes next.
    key: Option<Rc<Node>>,
}

impl Loader<'_> {
    /// Takes the next event; yields the root once it is complete.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<Option<Rc<Node>>, ScanError> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let scalar = Scalar {
                    text: text.into_owned(),
                    style,
                    column: span.start.col(),
                    has_many_lines: span.end.line() > line,
                };
                let kind = Kind::Scalar(scalar);
                Ok(self.complete(anchor, Rc::new(Node { line, kind })))
            }
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, Kind::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(line, anchor, Kind::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => {
                let ended = self.open.pop();
                Ok(ended.and_then(|Open { node, anchor, .. }| self.complete(anchor, Rc::new(node))))
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    let (size, depth) = node.measure();
                    self.grow(size)?;
                    self.check_depth(depth, line)?;
                    Ok(self.complete(0, node))
                }
                // An alias within what it stands for.
                None => Err(ScanError::Yaml {
                    file: self.file.to_owned(),
                    line,
                    problem: "alias to something that contains it".into(),
                    hint: "write out what is meant",
                }),
            },
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::Nothing => Ok(None),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, kind: Kind) -> Result<Option<Rc<Node>>, ScanError> {
        self.check_depth(1, line)?;
        self.open.push(Open {
            node: Node { line, kind },
            anchor,
            key: None,
        });
        Ok(None)
    }

    /// Puts a node where it belongs; yields it if it is the root.
    fn complete(&mut self, anchor: usize, node: Rc<Node>) -> Option<Rc<Node>> {
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let Some(parent) = self.open.last_mut() else {
            return Some(node);
        };
        match (&mut parent.node.kind, parent.key.take()) {
            (Kind::Map(entries), Some(key)) => entries.push((key, node)),
            (Kind::Map(_), None) => parent.key = Some(node),
            (Kind::List(items), _) => items.push(node),
            (Kind::Scalar(_), _) => {}
        }
        None
    }

    fn grow(&mut self, by: usize) -> Result<(), ScanError> {
        self.size += by;
        if self.size > SIZE_MAX {
            return Err(ScanError::Large {
                file: self.file.to_owned(),
                limit: SIZE_MAX,
            });
        }
        Ok(())
    }

    /// Fails where `more` levels below those that are open would be too many.
    fn check_depth(&self, more: usize, line: usize) -> Result<(), ScanError> {
        if self.open.len() + more > DEPTH_MAX {
            return Err(ScanError::Deep {
                file: self.file.to_owned(),
                line,
                limit: DEPTH_MAX,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> (String, Vec<usize>) {
        let root = parse("w.yml", text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let script = root.get("run").unwrap().script(&lines).unwrap();
        let numbers = (0..script.text.lines().count()).map(|index| script.line(index));
        (script.text.clone(), numbers.collect())
    }

    fn error(text: &str) -> String {
        parse("w.yml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_literal_block_begins_below_its_header() {
        let (text, lines) = script("a: 1\nrun: |\n\n  one\n  two\n");
        assert_eq!((text.as_str(), lines), ("\none\ntwo\n", vec![3, 4, 5]));
    }

    #[test]
    fn a_folded_block_keeps_its_lines_apart_as_a_shell_does() {
        let (text, lines) = script("run: >-\n  one\n  two\n\n  three\n   four\n");
        assert_eq!(text, "one \\\ntwo\n\nthree\nfour");
        assert_eq!(lines, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn plain_and_quoted_scalars_can_have_many_lines() {
        assert_eq!(script("run: one\n  two\n").0, "one \\\ntwo");
        assert_eq!(script("{a: 1, run: 'one'}\n").0, "one");
        let (text, lines) = script("run: \"one\n  two\n\n  three\"\n");
        assert_eq!((text.as_str(), lines), ("one \\\ntwo\n\nthree", vec![1, 2, 3, 4]));
    }

    #[test]
    fn a_script_with_escapes_stays_in_its_first_line() {
        let (text, lines) = script("a: 1\nrun: \"one\\ntwo\"\n");
        assert_eq!((text.as_str(), lines), ("one\ntwo", vec![2, 2]));
    }

    #[test]
    fn aliases_are_what_they_stand_for() {
        let root = parse("w.yml", "a: &x {b: 1}\nc: *x\n").unwrap();
        assert_eq!(root.get("c").unwrap().get_text("b"), Some("1"));
    }

    #[test]
    fn an_alias_cannot_contain_itself() {
        assert!(error("a: &x [*x]\n").starts_with("w.yml:1: alias to something"));
    }

    /// Lines of which each has an anchor, for as many aliases to the one before as told.
    fn anchors(levels: usize, aliases: usize) -> String {
        let line = |level: usize| {
            let below = vec![format!("*a{level}"); aliases].join(", ");
            format!("a{0}: &a{0} [{below}]\n", level + 1)
        };
        let lines: String = (0..levels).map(line).collect();
        format!("a0: &a0 [x]\n{lines}")
    }

    #[test]
    fn aliases_that_multiply_are_refused_before_they_are_followed() {
        assert!(error(&anchors(12, 8)).starts_with("`w.yml` has more than 1048576 bytes"));
    }

    #[test]
    fn aliases_that_nest_are_refused() {
        assert!(error(&anchors(200, 1)).starts_with("w.yml:63: more than 64 levels deep"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let blocks: String = (0..100).map(|level| " ".repeat(level) + "a:\n").collect();
        assert!(error(&blocks).starts_with("w.yml:65: more than 64 levels deep"));
        // Here it is the parser that gives up.
        assert!(error(&"[".repeat(500_000)).starts_with("w.yml:1: "));
    }

    #[test]
    fn tabs_are_told_from_other_mistakes() {
        assert!(error("jobs:\n\ta: 1\n").ends_with("hint: indent with spaces; YAML has no tabs there"));
        assert!(
            error("a: [\n").ends_with("hint: GitHub would refuse it as well; a linter of YAML tells more")
        );
    }
}
