//! Words of a script: quotes, variables and the substitutions in them.

use super::{DEPTH_MAX, EXPRESSION, Reader, Word};

/// A word, or a character that is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Word(Word),
    Operator(char),
}

impl Piece {
    /// The text, if it can be a keyword.
    pub(super) fn keyword(&self) -> &str {
        match self {
            Self::Word(word) => word.keyword(),
            Self::Operator(_) => "",
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// Goes past `expected` if it comes next.
    pub(super) fn eat(&mut self, expected: &str) -> bool {
        let comes_next = self.text[self.at..].starts_with(expected);
        if comes_next {
            self.skip(expected.len());
        }
        comes_next
    }

    /// Goes past this many bytes.
    pub(super) fn skip(&mut self, bytes: usize) -> &'a str {
        let skipped = &self.text[self.at..self.at + bytes];
        self.line += skipped.matches('\n').count();
        self.at += bytes;
        skipped
    }

    /// Goes past everything before `end`, and past `end`; to the end of the text if that does not come.
    pub(super) fn skip_past(&mut self, end: &str) -> &'a str {
        let rest = &self.text[self.at..];
        match rest.find(end) {
            Some(before) => {
                let skipped = self.skip(before);
                self.skip(end.len());
                skipped
            }
            None => self.skip(rest.len()),
        }
    }

    /// Goes to the end of the line.
    pub(super) fn skip_comment(&mut self) {
        let rest = &self.text[self.at..];
        self.skip(rest.find('\n').unwrap_or(rest.len()));
    }

    pub(super) fn skip_blanks(&mut self) {
        while self.eat(" ") || self.eat("\t") || self.eat("\\\n") {}
    }

    /// Begins a level of what can contain itself; the end of the text, if there are too many.
    pub(super) fn go_deeper(&mut self) {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.at = self.text.len();
        }
    }

    /// The next word or operator, where nothing else is told apart.
    pub(super) fn piece(&mut self) -> Option<Piece> {
        loop {
            match self.peek()? {
                ' ' | '\t' | '\r' | '\n' => _ = self.next(),
                '#' => self.skip_comment(),
                _ => break,
            }
        }
        let before = self.at;
        let word = self.word();
        if self.at > before {
            return Some(Piece::Word(word));
        }
        self.next().map(Piece::Operator)
    }

    /// Reads a word; an empty one where none begins.
    pub(super) fn word(&mut self) -> Word {
        let mut word = Word::default();
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '|' | '&' | ')' | '<' | '>' => break,
                '`' if self.is_backquoted => break,
                '(' if word.text.ends_with('=') && word.assignment().is_some() => self.array(&mut word),
                '(' => break,
                '\'' => {
                    self.next();
                    let quoted = self.skip_past("'");
                    word.quoted = true;
                    word.opaque |= quoted.contains(EXPRESSION);
                    word.text.push_str(quoted);
                }
                '"' => self.double_quoted(&mut word),
                '\\' => {
                    self.next();
                    word.quoted = true;
                    word.text.extend(self.next().filter(|c| *c != '\n'));
                }
                _ => self.plain(&mut word),
            }
        }
        word
    }

    /// Goes past the elements of `NAME=( … )`.
    fn array(&mut self, word: &mut Word) {
        self.next();
        self.go_deeper();
        word.opaque = true;
        while self.piece().is_some_and(|piece| piece != Piece::Operator(')')) {}
        self.depth -= 1;
    }

    fn double_quoted(&mut self, word: &mut Word) {
        self.next();
        word.quoted = true;
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.next();
                    break;
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        Some(c @ ('$' | '`' | '"' | '\\')) => word.text.push(c),
                        Some('\n') | None => {}
                        Some(c) => word.text.extend(['\\', c]),
                    }
                }
                _ => self.plain(word),
            }
        }
    }

    /// Reads a character, or everything that a `$` or backquote begins.
    fn plain(&mut self, word: &mut Word) {
        let Some(c) = self.next() else { return };
        match c {
            '`' => {
                word.opaque = true;
                word.text.push_str("$(…)");
                self.nested('`');
            }
            '$' => self.dollar(word),
            _ => {
                word.opaque |= c == EXPRESSION;
                word.text.push(c);
            }
        }
    }

    /// What follows `$`.
    fn dollar(&mut self, word: &mut Word) {
        if !word.quoted && self.eat("'") {
            word.quoted = true;
            while let Some(c) = self.next().filter(|c| *c != '\'') {
                word.text.push(c);
                if c == '\\' {
                    word.text.extend(self.next());
                }
            }
            return;
        }
        let before = self.at;
        if self.eat("((") {
            self.skip_past("))");
        } else if self.eat("(") {
            self.nested(')');
            word.text.push_str("$(…)");
            word.opaque = true;
            return;
        } else if self.eat("{") {
            self.braces();
        } else {
            let rest = &self.text[self.at..];
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let special = usize::from(rest.starts_with(['@', '*', '#', '?', '!', '$', '-']));
            self.skip(name.max(special));
        }
        word.opaque |= self.at > before;
        word.text.push('$');
        word.text.push_str(&self.text[before..self.at]);
    }

    /// Goes past the rest of `${ … }`.
    fn braces(&mut self) {
        self.go_deeper();
        while let Some(c) = self.next() {
            match c {
                '}' => break,
                '\\' => _ = self.next(),
                '$' | '`' => {
                    // Its commands count, its text does not.
                    self.at -= 1;
                    self.plain(&mut Word::default());
                }
                _ => {}
            }
        }
        self.depth -= 1;
    }
}
