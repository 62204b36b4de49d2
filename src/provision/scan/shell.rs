//! The commands of a shell script, and the lines they stand in.
//!
//! A reader for what POSIX shells and bash have in common, which is not a parser of either: it tells words,
//! quotes, comments, here-documents and control structures apart well enough to know which words are commands,
//! those in `$( … )` included. What a script computes stays unknown; a word with such a part is
//! [opaque](Word::opaque). No text is wrong: what cannot be understood yields fewer commands.

mod words;

use std::collections::BTreeSet;

use self::words::Piece;

/// Stands in a script for an expression `${{ … }}`, which GitHub replaces before the shell sees it.
pub(super) const EXPRESSION: char = '\u{fffc}';

/// The most levels of substitutions, subshells and arrays that are followed.
const DEPTH_MAX: usize = 32;

/// What a script runs.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Its commands, those of substitutions before what they are part of.
    pub(super) commands: Vec<Command>,
    /// Names of its functions.
    pub(super) functions: BTreeSet<String>,
}

/// A simple command.
#[derive(Debug, Default)]
pub(super) struct Command {
    /// Line breaks of the script before it.
    pub(super) line: usize,
    /// Variables it sets, for itself or, without words, for what follows: `NAME=value`.
    pub(super) assignments: Vec<Word>,
    /// Its name and arguments.
    pub(super) words: Vec<Word>,
    /// The files it writes its output to.
    pub(super) writes: Vec<Word>,
}

/// A word without its quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// The text; variables and substitutions in it look as in the script.
    pub(super) text: String,
    /// Whether something in it is known only when the script runs.
    pub(super) opaque: bool,
    /// Whether something in it was quoted, so that it is no keyword.
    quoted: bool,
}

impl Word {
    /// A word without quotes.
    pub(super) fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// The text, if it is known before the script runs.
    pub(super) fn literal(&self) -> Option<&str> {
        (!self.opaque).then_some(&self.text)
    }

    /// The text, if it can be a keyword.
    fn keyword(&self) -> &str {
        if self.quoted { "" } else { &self.text }
    }

    /// The name and value of an assignment.
    pub(super) fn assignment(&self) -> Option<(&str, &str)> {
        let (name, value) = self.text.split_once('=')?;
        let name = name.strip_suffix('+').unwrap_or(name);
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty();
        is_name.then_some((name, value))
    }
}

/// Replaces each `${{ … }}` by [`EXPRESSION`] and keeps the lines apart.
pub(super) fn without_expressions(text: &str) -> String {
    let mut parts = text.split("${{");
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (expression, rest) = part.split_once("}}").unwrap_or((part, ""));
        replaced.push(EXPRESSION);
        replaced.push_str(&"\\\n".repeat(expression.matches('\n').count()));
        replaced.push_str(rest);
    }
    replaced
}

/// Reads a script in which there are no expressions any more.
pub(super) fn read(text: &str) -> Script {
    let mut reader = Reader {
        text,
        at: 0,
        line: 0,
        depth: 0,
        is_backquoted: false,
        heredocs: Vec::new(),
        script: Script::default(),
    };
    reader.commands(None);
    reader.script
}

struct Reader<'a> {
    text: &'a str,
    /// Byte of `text` that comes next.
    at: usize,
    /// Line breaks before it.
    line: usize,
    /// Substitutions, subshells and arrays around it.
    depth: usize,
    /// Whether the innermost of them ends with a backquote.
    is_backquoted: bool,
    /// Here-documents that begin with the next line.
    heredocs: Vec<Heredoc>,
    script: Script,
}

struct Heredoc {
    /// The line after the last.
    end: String,
    /// Whether tabs before that do not count.
    ignores_tabs: bool,
}

impl Reader<'_> {
    /// Reads commands until `close`, or the end of the text.
    fn commands(&mut self, close: Option<char>) {
        self.go_deeper();
        let mut command = Command::default();
        // `case` structures around the command, which decide what `)` and `;;` mean.
        let mut cases = 0;
        while let Some(c) = self.peek() {
            if Some(c) == close {
                self.next();
                break;
            }
            match c {
                ' ' | '\t' | '\r' => _ = self.next(),
                '\\' if self.eat("\\\n") => {}
                '#' => self.skip_comment(),
                '\n' => {
                    self.finish(&mut command);
                    self.next();
                    self.skip_heredocs();
                }
                ';' => {
                    self.finish(&mut command);
                    self.next();
                    let ends_clause = self.eat(";&") || self.eat(";") || self.eat("&");
                    if ends_clause && cases > 0 && !self.pattern() {
                        cases -= 1;
                    }
                }
                '&' if self.eat("&>") => self.redirection('>', &mut command),
                '&' | '|' | ')' => {
                    self.finish(&mut command);
                    self.next();
                }
                '(' => self.parenthesis(&mut command),
                '<' | '>' => {
                    self.next();
                    self.redirection(c, &mut command);
                }
                _ => {
                    let before = self.at;
                    let line = self.line;
                    let word = self.word();
                    if self.at == before {
                        // A backquote that closes nothing here.
                        self.next();
                    } else {
                        self.place(word, line, &mut command, &mut cases);
                    }
                }
            }
        }
        self.finish(&mut command);
        self.depth -= 1;
    }

    /// Ends a command.
    fn finish(&mut self, command: &mut Command) {
        let command = std::mem::take(command);
        let runs_something = match command.words.first() {
            Some(word) => !["for", "select"].contains(&word.keyword()),
            None => !command.assignments.is_empty(),
        };
        if runs_something {
            self.script.commands.push(command);
        }
    }

    /// Puts a word where it belongs, after what follows it if it is a keyword.
    fn place(&mut self, word: Word, line: usize, command: &mut Command, cases: &mut usize) {
        // The `2` of `2>&1`.
        let is_descriptor =
            matches!(self.peek(), Some('<' | '>')) && word.text.bytes().all(|byte| byte.is_ascii_digit());
        if is_descriptor && !word.quoted {
            return;
        }
        if !command.words.is_empty() {
            command.words.push(word);
            return;
        }
        if command.assignments.is_empty() {
            command.line = line;
        }
        match word.keyword() {
            "if" | "then" | "elif" | "else" | "fi" | "while" | "until" | "do" | "done" | "!" | "{" | "}"
            | "coproc" => {}
            "esac" => *cases = cases.saturating_sub(1),
            "[[" => while self.piece().is_some_and(|piece| piece.keyword() != "]]") {},
            "function" => {
                self.skip_blanks();
                let name = self.word();
                self.function(name.text);
            }
            "case" => {
                let subject = self.piece();
                let has_clauses =
                    subject.is_some() && self.piece().is_some_and(|piece| piece.keyword() == "in");
                *cases += usize::from(has_clauses && self.pattern());
            }
            _ if word.assignment().is_some() => command.assignments.push(word),
            _ => command.words.push(word),
        }
    }

    /// Goes past the pattern of the next clause of a `case`; false if that ended instead.
    fn pattern(&mut self) -> bool {
        while let Some(piece) = self.piece() {
            match piece {
                Piece::Operator(')') => return true,
                Piece::Word(word) if word.keyword() == "esac" => return false,
                Piece::Operator(_) | Piece::Word(_) => {}
            }
        }
        false
    }

    /// What begins with `(`: a subshell, arithmetic or the rest of a function's name.
    fn parenthesis(&mut self, command: &mut Command) {
        if self.eat("((") {
            self.skip_past("))");
            return;
        }
        match command.words.as_slice() {
            [] => {
                self.next();
                self.nested(')');
            }
            [name] => {
                let name = name.text.clone();
                *command = Command::default();
                self.function(name);
            }
            [..] => _ = self.next(),
        }
    }

    /// Notes a function whose name was read.
    fn function(&mut self, name: String) {
        self.skip_blanks();
        if self.eat("(") {
            self.skip_past(")");
        }
        self.script.functions.insert(name);
    }

    /// Reads the commands of a substitution or subshell.
    fn nested(&mut self, close: char) {
        let outer = std::mem::replace(&mut self.is_backquoted, close == '`');
        self.commands(Some(close));
        self.is_backquoted = outer;
    }

    /// What follows `<` or `>`.
    fn redirection(&mut self, direction: char, command: &mut Command) {
        if self.eat("(") {
            self.nested(')');
            return;
        }
        let is_heredoc = direction == '<' && self.eat("<") && !self.eat("<");
        let ignores_tabs = is_heredoc && self.eat("-");
        while self.eat(">") || self.eat("|") || self.eat("&") {}
        self.skip_blanks();
        let word = self.word();
        if is_heredoc {
            let end = word.text;
            self.heredocs.push(Heredoc { end, ignores_tabs });
        } else if direction == '>' {
            command.writes.push(word);
        }
    }

    fn skip_heredocs(&mut self) {
        for Heredoc { end, ignores_tabs } in std::mem::take(&mut self.heredocs) {
            while self.at < self.text.len() {
                let line = self.skip_past("\n").trim_end_matches('\r');
                let line = if ignores_tabs {
                    line.trim_start_matches('\t')
                } else {
                    line
                };
                if line == end {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The commands of a script, each with its line from 1 and its words between bars.
    fn commands(script: &str) -> Vec<String> {
        let commands = read(&without_expressions(script)).commands;
        let told = commands.iter().filter(|command| !command.words.is_empty());
        told.map(|command| {
            let words: Vec<_> = command.words.iter().map(|word| word.text.as_str()).collect();
            format!("{} {}", command.line + 1, words.join("|"))
        })
        .collect()
    }

    #[test]
    fn separators_and_quotes_make_words_and_commands() {
        let cases: [(&str, &[&str]); 9] = [
            ("a 'b c' \"d e\"f\\ g", &["1 a|b c|d ef g"]),
            (
                "a && b || c; d | e & f |& g",
                &["1 a", "1 b", "1 c", "1 d", "1 e", "1 f", "1 g"],
            ),
            ("a # b\nc#d 'e\nf'\ng", &["1 a", "2 c#d|e\nf", "4 g"]),
            ("a \\\n  b\nc", &["1 a|b", "3 c"]),
            ("X=1 Y=\"2 3\" a b=c", &["1 a|b=c"]),
            ("a >b 2>&1 <c &>d >>e f", &["1 a|f"]),
            ("a '${{ b == 'c' }}' d", &["1 a|\u{fffc}|d"]),
            ("a $'b\\'c' $d", &["1 a|b\\'c|$d"]),
            ("a\r\nb\r\n", &["1 a", "2 b"]),
        ];
        for (script, expected) in cases {
            assert_eq!(commands(script), expected, "{script}");
        }
    }

    #[test]
    fn substitutions_have_commands() {
        let cases: [(&str, &[&str]); 8] = [
            ("a $(b c) d", &["1 b|c", "1 a|$(…)|d"]),
            ("a \"$(b \"$(c)\")\"", &["1 c", "1 b|$(…)", "1 a|$(…)"]),
            ("X=`a b`\nc", &["1 a|b", "2 c"]),
            ("a ${X:-$(b)} <(c)", &["1 b", "1 c", "1 a|${X:-$(b)}"]),
            ("a $((1 + 2)) ((3))", &["1 a|$((1 + 2))"]),
            ("x=(a $(b)\n c)\nd", &["1 b", "3 d"]),
            ("(a; b) && { c; }", &["1 a", "1 b", "1 c"]),
            ("a '$(b)' \\$c", &["1 a|$(b)|$c"]),
        ];
        for (script, expected) in cases {
            assert_eq!(commands(script), expected, "{script}");
        }
    }

    #[test]
    fn control_structures_are_no_commands() {
        let script = "\
if ! a; then b; elif [[ $c == d && -n \"$(e)\" ]]; then f
else g; fi
for h in i $(j); do k; done < l
for ((m=0; m<3; m++)); do n; done
while read -r o; do p; done | q
case $(r) in
  s|t) u ;;
  (v) w;;
  *) x
esac
function y { z; }
y() { true; }
";
        assert_eq!(
            commands(script),
            [
                "1 a",
                "1 b",
                "1 e",
                "1 f",
                "2 g",
                "3 j",
                "3 k",
                "4 n",
                "5 read|-r|o",
                "5 p",
                "5 q",
                "6 r",
                "7 u",
                "8 w",
                "9 x",
                "11 z",
                "12 true"
            ]
        );
        assert_eq!(read(script).functions, BTreeSet::from(["y".to_owned()]));
    }

    #[test]
    fn here_documents_are_skipped() {
        let script = "a <<EOF | b\nc\nEOF\nd <<-'END'\n\te\n\tEND\nf <<< g\nh $(i <<X\nj\nX\n)\n";
        assert_eq!(commands(script), ["1 a", "1 b", "4 d", "7 f", "8 i", "8 h|$(…)"]);
    }

    #[test]
    fn expressions_keep_the_lines_apart() {
        assert_eq!(commands("a ${{\n b }}\nc"), ["1 a|\u{fffc}", "3 c"]);
        assert_eq!(commands("a ${{ b"), ["1 a|\u{fffc}"]);
    }

    #[test]
    fn what_cannot_be_understood_yields_fewer_commands() {
        for script in [
            "a 'b",
            "a \"b",
            "a $(b",
            "a ${b",
            "a `b",
            ")",
            "case",
            "case a",
            "case a in",
            "}",
            "a <<",
        ] {
            assert!(commands(script).len() <= 2, "{script}");
        }
        for deep in ["$(", "(", "${", "`$(", "\"$(", "a=("] {
            assert!(commands(&deep.repeat(100_000)).len() < 100, "{deep}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[a-c $(){}\"'`\\\\;&|<>\n=#\u{fffc}é\\[\\]]{0,80}") {
            let lines = text.matches('\n').count();
            for command in read(&text).commands {
                prop_assert!(command.line <= lines);
            }
        }
    }
}
