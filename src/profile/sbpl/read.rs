//! The reader: text to forms, each with its place.
//!
//! The syntax is TinyScheme's, which libsandbox runs, with Apple's raw strings `#"…"`. One run reports every
//! problem it can find by going on behind it.

use std::sync::Arc;

use super::{PROBLEMS_MAX, Place, Problem};

/// Largest text; the largest profile that macOS ships has about 200 KiB. Forms take up to 150 times their text.
pub(super) const TEXT_MAX_BYTE: usize = 1024 * 1024;

/// Deepest nesting of parentheses. It bounds the recursion of everything that walks a form.
const DEPTH_MAX: usize = 256;

/// One expression and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Form {
    pub(super) at: Place,
    pub(super) kind: Kind,
}

/// What an expression is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A name.
    Symbol(Arc<str>),
    /// `"…"` with escapes resolved, or `#"…"` as it stands.
    String(Arc<str>),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Real(f64),
    /// `#t` or `#f`.
    Bool(bool),
    /// `#\c`.
    Char(char),
    /// `(a b)`; with a tail `(a b . c)`.
    List(Vec<Form>, Option<Box<Form>>),
}

/// Reads all of `text`: the forms that are well formed, and what is wrong with the others.
pub(super) fn read(file: &Arc<str>, text: &[u8]) -> (Vec<Form>, Vec<Problem>) {
    let start = Place {
        file: file.clone(),
        line: 1,
        column: 1,
    };
    let problem = |at, message: String, hint: Option<&str>| Problem {
        at,
        message,
        hint: hint.map(str::to_owned),
    };
    if text.len() > TEXT_MAX_BYTE {
        let message = format!("the text has {} bytes, more than {TEXT_MAX_BYTE}", text.len());
        return (vec![], vec![problem(start, message, None)]);
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let valid = String::from_utf8_lossy(&text[..error.valid_up_to()]);
            let at = valid.chars().fold(start, after);
            let message = "the text is not UTF-8 from here on".to_owned();
            return (vec![], vec![problem(at, message, Some("save the file as UTF-8"))]);
        }
    };
    let mut reader = Reader {
        rest: text,
        at: start,
        problems: Vec::new(),
        depth: 0,
    };
    let forms = reader.forms();
    (forms, reader.problems)
}

/// The place behind `c` at `at`.
fn after(mut at: Place, c: char) -> Place {
    if c == '\n' {
        at.line += 1;
        at.column = 1;
    } else {
        at.column += 1;
    }
    at
}

struct Reader<'a> {
    rest: &'a str,
    at: Place,
    problems: Vec<Problem>,
    depth: usize,
}

/// How an attempt to read one form ended otherwise than with a form.
enum Stop {
    /// The text is over.
    End,
    /// A `)`.
    Close,
    /// A dot of its own.
    Dot,
    /// Reported; reading can go on behind it.
    Bad,
    /// Reported; there is nothing to go on with.
    Hopeless,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.at.line += 1;
            self.at.column = 1;
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn report(&mut self, at: Place, message: impl Into<String>, hint: Option<&str>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem {
                at,
                message: message.into(),
                hint: hint.map(str::to_owned),
            });
        }
    }

    fn forms(&mut self) -> Vec<Form> {
        let mut forms = Vec::new();
        loop {
            let at = self.at.clone();
            match self.form() {
                Ok(form) => forms.push(form),
                Err(Stop::Bad) => {}
                Err(Stop::Close) => self.report(at, "there is no `(` for this `)`", None),
                Err(Stop::Dot) => {
                    self.report(at, "a dot goes only between the last two parts of a list", None)
                }
                Err(Stop::End | Stop::Hopeless) => return forms,
            }
        }
    }

    fn skip_blank(&mut self) {
        loop {
            match self.peek() {
                Some(c) if c.is_whitespace() => {
                    self.next();
                }
                Some(';') => self.skip_line(),
                Some('#') if self.rest.starts_with("#!") => self.skip_line(),
                _ => return,
            }
        }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.next();
        }
    }

    fn form(&mut self) -> Result<Form, Stop> {
        self.skip_blank();
        let at = self.at.clone();
        let Some(c) = self.peek() else {
            return Err(Stop::End);
        };
        let kind = match c {
            '(' => self.list(&at)?,
            ')' => {
                self.next();
                return Err(Stop::Close);
            }
            '\'' => self.quoted(&at, "quote", 1)?,
            '`' => self.quoted(&at, "quasiquote", 1)?,
            ',' if self.rest.starts_with(",@") => self.quoted(&at, "unquote-splicing", 2)?,
            ',' => self.quoted(&at, "unquote", 1)?,
            '"' => self.string(&at)?,
            '#' => self.sharp(&at)?,
            _ => self.atom(&at)?,
        };
        Ok(Form { at, kind })
    }

    fn list(&mut self, open: &Place) -> Result<Kind, Stop> {
        if self.depth == DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} parentheses are open here");
            self.report(open.clone(), message, None);
            return Err(Stop::Hopeless);
        }
        self.next();
        self.depth += 1;
        let mut items = Vec::new();
        let mut tail = None;
        let list = loop {
            self.skip_blank();
            let at = self.at.clone();
            match self.form() {
                Ok(form) if tail.is_none() => items.push(form),
                Ok(form) => self.report(form.at, "a list has only one part behind its dot", None),
                Err(Stop::Bad) => {}
                Err(Stop::Close) => break Ok(Kind::List(items, tail)),
                Err(Stop::Dot) if items.is_empty() || tail.is_some() => {
                    self.report(at, "a dot goes only between the last two parts of a list", None);
                }
                Err(Stop::Dot) => match self.form() {
                    Ok(form) => tail = Some(Box::new(form)),
                    Err(Stop::Close) => {
                        self.report(at, "nothing follows the dot", None);
                        break Ok(Kind::List(items, None));
                    }
                    Err(Stop::Bad | Stop::Dot) => {}
                    Err(stop) => break Err(stop),
                },
                Err(Stop::End) => {
                    self.report(open.clone(), "there is no `)` for this `(`", None);
                    break Err(Stop::Hopeless);
                }
                Err(Stop::Hopeless) => break Err(Stop::Hopeless),
            }
        };
        self.depth -= 1;
        list
    }

    fn quoted(&mut self, at: &Place, name: &str, length: usize) -> Result<Kind, Stop> {
        if self.depth == DEPTH_MAX {
            self.report(
                at.clone(),
                format!("more than {DEPTH_MAX} quotes are nested here"),
                None,
            );
            return Err(Stop::Hopeless);
        }
        for _ in 0..length {
            self.next();
        }
        self.depth += 1;
        let form = self.form();
        self.depth -= 1;
        match form {
            Ok(form) => {
                let name = Form {
                    at: at.clone(),
                    kind: Kind::Symbol(name.into()),
                };
                Ok(Kind::List(vec![name, form], None))
            }
            Err(Stop::End) => {
                self.report(at.clone(), format!("nothing follows this {name}"), None);
                Err(Stop::Hopeless)
            }
            Err(Stop::Close) => {
                self.report(at.clone(), format!("nothing follows this {name}"), None);
                // It closes the list around the quote.
                Err(Stop::Close)
            }
            Err(stop) => Err(stop),
        }
    }

    fn string(&mut self, open: &Place) -> Result<Kind, Stop> {
        self.next();
        let mut text = String::new();
        loop {
            let at = self.at.clone();
            match self.next() {
                None => return self.unterminated(open),
                Some('"') => return Ok(Kind::String(text.into())),
                Some('\0') => self.report(at, "there is a NUL byte in a string", None),
                Some('\\') => match self.next() {
                    None => return self.unterminated(open),
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some('x' | 'X') => self.escaped(&at, &mut text, 16),
                    Some(digit @ '0'..='7') => {
                        let mut value = digit as u32 - '0' as u32;
                        while let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) {
                            if value >= 32 {
                                break;
                            }
                            value = value * 8 + digit;
                            self.next();
                        }
                        self.push_code(&at, &mut text, value);
                    }
                    Some(c) => text.push(c),
                },
                Some(c) => text.push(c),
            }
        }
    }

    /// Reads the two digits behind `\x`.
    fn escaped(&mut self, at: &Place, text: &mut String, radix: u32) {
        let mut value = 0;
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else {
                self.report(at.clone(), "`\\x` needs two hexadecimal digits", None);
                return;
            };
            value = value * radix + digit;
            self.next();
        }
        self.push_code(at, text, value);
    }

    /// Adds one byte; bytes above 127 would be parts of a character, which no path or name here is made of.
    fn push_code(&mut self, at: &Place, text: &mut String, value: u32) {
        match char::from_u32(value) {
            Some(c) if c.is_ascii() && c != '\0' => text.push(c),
            _ => self.report(
                at.clone(),
                "only the characters 1 to 127 can be escaped by number",
                None,
            ),
        }
    }

    fn unterminated(&mut self, open: &Place) -> Result<Kind, Stop> {
        self.report(open.clone(), "the string that begins here does not end", None);
        Err(Stop::Hopeless)
    }

    fn sharp(&mut self, at: &Place) -> Result<Kind, Stop> {
        self.next();
        match self.peek() {
            Some('"') => self.raw_string(at),
            Some('(') => {
                self.report(at.clone(), "profiles have no vectors", Some("write a list: '(…)"));
                // Read past it, so that its parts are not taken for forms of their own.
                self.list(at)?;
                Err(Stop::Bad)
            }
            Some('\\') => {
                self.next();
                let mut name = String::new();
                // The first character counts even where it would end a name: `#\(`.
                name.extend(self.next());
                while self.peek().is_some_and(|c| !is_delimiter(c)) {
                    name.extend(self.next());
                }
                self.character(at, &name)
            }
            _ => {
                let name = self.name();
                match name.as_str() {
                    "t" => Ok(Kind::Bool(true)),
                    "f" => Ok(Kind::Bool(false)),
                    _ => self.radix(at, &name),
                }
            }
        }
    }

    /// `#"…"`: a backslash keeps the character behind it from ending the string, and both stay as they are.
    fn raw_string(&mut self, open: &Place) -> Result<Kind, Stop> {
        self.next();
        let mut text = String::new();
        loop {
            let at = self.at.clone();
            match self.next() {
                None => return self.unterminated(open),
                Some('"') => return Ok(Kind::String(text.into())),
                Some('\0') => self.report(at, "there is a NUL byte in a string", None),
                Some('\\') => {
                    text.push('\\');
                    match self.next() {
                        None => return self.unterminated(open),
                        Some(c) => text.push(c),
                    }
                }
                Some(c) => text.push(c),
            }
        }
    }

    fn character(&mut self, at: &Place, name: &str) -> Result<Kind, Stop> {
        let mut chars = name.chars();
        let c = match (name, chars.next(), chars.as_str()) {
            ("space", ..) => ' ',
            ("newline", ..) => '\n',
            ("return", ..) => '\r',
            ("tab", ..) => '\t',
            (_, Some(c), "") => c,
            (_, Some('x'), digits) => match u32::from_str_radix(digits, 16).ok().and_then(char::from_u32) {
                Some(c) => c,
                None => return self.unknown_sharp(at, &format!("\\{name}")),
            },
            _ => return self.unknown_sharp(at, &format!("\\{name}")),
        };
        Ok(Kind::Char(c))
    }

    fn radix(&mut self, at: &Place, name: &str) -> Result<Kind, Stop> {
        let radix = match name.chars().next() {
            Some('o') => 8,
            Some('x') => 16,
            Some('b') => 2,
            Some('d') => 10,
            _ => return self.unknown_sharp(at, name),
        };
        match i64::from_str_radix(&name[1..], radix) {
            Ok(number) => Ok(Kind::Int(number)),
            Err(_) => self.unknown_sharp(at, name),
        }
    }

    fn unknown_sharp(&mut self, at: &Place, name: &str) -> Result<Kind, Stop> {
        let hint = name.is_empty().then_some("comments begin with `;`");
        self.report(at.clone(), format!("`#{name}` means nothing"), hint);
        Err(Stop::Bad)
    }

    /// Everything up to the next delimiter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while self.peek().is_some_and(|c| !is_delimiter(c)) {
            name.extend(self.next());
        }
        name
    }

    fn atom(&mut self, at: &Place) -> Result<Kind, Stop> {
        let name = self.name();
        if name == "." {
            return Err(Stop::Dot);
        }
        if name.chars().any(char::is_control) {
            self.report(at.clone(), "there is a control character in a name", None);
            return Err(Stop::Bad);
        }
        let looks_numeric = name
            .trim_start_matches(['+', '-'])
            .starts_with(|c: char| c.is_ascii_digit() || c == '.');
        if let Ok(number) = name.parse::<i64>() {
            return Ok(Kind::Int(number));
        }
        match name.parse::<f64>() {
            Ok(number) if looks_numeric && number.is_finite() => Ok(Kind::Real(number)),
            _ => Ok(Kind::Symbol(name.into())),
        }
    }
}

fn is_delimiter(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '"' | ';' | '\'' | '`' | ',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> Vec<Form> {
        let (forms, problems) = read(&"t".into(), text.as_bytes());
        assert_eq!(problems, vec![], "{text}");
        forms
    }

    fn one(text: &str) -> Kind {
        let mut forms = forms(text);
        assert_eq!(forms.len(), 1, "{text}");
        forms.remove(0).kind
    }

    fn problems(text: &[u8]) -> Vec<String> {
        read(&"t".into(), text)
            .1
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn string(text: &str) -> Kind {
        Kind::String(text.into())
    }

    #[test]
    fn strings_resolve_escapes_and_raw_ones_keep_them() {
        assert_eq!(one(r#""a\"b\\c\n\x41\101""#), string("a\"b\\c\nAA"));
        assert_eq!(one(r#"#"^/a\.b\"c$""#), string(r#"^/a\.b\"c$"#));
        assert_eq!(one("\"two\nlines\""), string("two\nlines"));
    }

    #[test]
    fn numbers_characters_and_booleans_are_read() {
        assert_eq!(one("#o0004"), Kind::Int(4));
        assert_eq!(one("#xff"), Kind::Int(255));
        assert_eq!(one("-12"), Kind::Int(-12));
        assert_eq!(one("1.5"), Kind::Real(1.5));
        assert_eq!(one("#\\a"), Kind::Char('a'));
        assert_eq!(one("#\\("), Kind::Char('('));
        assert_eq!(one("#\\space"), Kind::Char(' '));
        assert_eq!(one("#f"), Kind::Bool(false));
        assert_eq!(one("file-read*"), Kind::Symbol("file-read*".into()));
        assert_eq!(one("..."), Kind::Symbol("...".into()));
        assert_eq!(one("inf"), Kind::Symbol("inf".into()), "a name, not a number");
    }

    #[test]
    fn quotes_are_lists_with_a_name() {
        assert_eq!(one("'a"), one("(quote a)").at_moved(one("'a")));
        assert!(matches!(one("`(a ,b ,@c)"), Kind::List(items, None) if items.len() == 2));
        assert!(matches!(one("(a . b)"), Kind::List(items, Some(_)) if items.len() == 1));
    }

    impl Kind {
        /// `other`, if it is the same but for places.
        fn at_moved(self, other: Self) -> Self {
            fn shape(kind: &Kind) -> String {
                match kind {
                    Kind::List(items, _) => items.iter().map(|item| shape(&item.kind)).collect(),
                    other => format!("{other:?}"),
                }
            }
            assert_eq!(shape(&self), shape(&other));
            other
        }
    }

    #[test]
    fn comments_end_with_their_line() {
        assert_eq!(forms("; a (\n#! b (\n(c) ; d\n").len(), 1);
    }

    #[test]
    fn every_problem_is_told_at_its_place() {
        assert_eq!(
            problems(b"(a))\n(b #z)\n(c\n"),
            [
                "t:1:4: there is no `(` for this `)`",
                "t:2:4: `#z` means nothing",
                "t:3:1: there is no `)` for this `(`"
            ]
        );
        assert_eq!(
            problems(b"(a \"b"),
            ["t:1:4: the string that begins here does not end"]
        );
        assert_eq!(problems(b"(a '"), ["t:1:4: nothing follows this quote"]);
        assert_eq!(problems(b"(a ')"), ["t:1:4: nothing follows this quote"]);
        assert_eq!(
            problems(b"# comment"),
            ["t:1:1: `#` means nothing\nhint: comments begin with `;`"]
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_told_at_their_place() {
        assert_eq!(
            problems(b"(a)\n(b \xff)"),
            ["t:2:4: the text is not UTF-8 from here on\nhint: save the file as UTF-8"]
        );
        assert_eq!(
            problems(b"(a \"b\0c\")"),
            ["t:1:6: there is a NUL byte in a string"]
        );
        assert_eq!(
            problems(b"(a b\0c)"),
            ["t:1:4: there is a control character in a name"]
        );
    }

    #[test]
    fn depth_and_size_have_limits() {
        let deep = "(".repeat(100_000);
        assert_eq!(
            problems(deep.as_bytes()),
            ["t:1:257: more than 256 parentheses are open here"]
        );
        let quotes = "'".repeat(100_000);
        assert_eq!(
            problems(quotes.as_bytes()),
            ["t:1:257: more than 256 quotes are nested here"]
        );
        let large = vec![b' '; 10_000_000];
        assert_eq!(
            problems(&large),
            ["t:1:1: the text has 10000000 bytes, more than 1048576"]
        );
    }
}
