//! The words of a packet filter's language: what both pf.conf(5) and nft(8) are made of.

use std::net::IpAddr;

use ipnet::IpNet;

use super::destination::Ports;
use super::rules::ReadError;

/// The words of one line, read from its start.
pub(super) struct Words<'a> {
    line: usize,
    words: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
}

impl<'a> Words<'a> {
    /// The words of `text`, which is line `line`; braces are words of their own, commas and semicolons none.
    pub(super) fn of(line: usize, text: &'a str) -> Self {
        let words: Vec<&str> = text
            .split(|c: char| c.is_whitespace() || c == ',' || c == ';')
            .flat_map(|word| word.split_inclusive(['{', '}']))
            .flat_map(|word| match word.strip_suffix(['{', '}']) {
                Some(before) => [before, &word[before.len()..]],
                None => [word, ""],
            })
            .filter(|word| !word.is_empty())
            .collect();
        Self {
            line,
            words: words.into_iter().peekable(),
        }
    }

    /// Whether the next word is `word`, which is then taken.
    pub(super) fn take(&mut self, word: &str) -> bool {
        self.words.next_if(|next| *next == word).is_some()
    }

    /// The next word.
    pub(super) fn next(&mut self) -> Option<&'a str> {
        self.words.next()
    }

    /// The next word, which must be there.
    pub(super) fn must(&mut self, what: &str) -> Result<&'a str, ReadError> {
        let line = self.line;
        self.words.next().ok_or_else(|| ReadError {
            line,
            what: format!("{what} is missing"),
        })
    }

    /// Takes `word`, which must be there.
    pub(super) fn expect(&mut self, word: &str) -> Result<(), ReadError> {
        match self.next() {
            Some(found) if found == word => Ok(()),
            Some(found) => Err(self.error(format!("`{found}` stands where `{word}` must"))),
            None => Err(self.error(format!("`{word}` is missing"))),
        }
    }

    /// One value, or several in braces.
    pub(super) fn values(&mut self, what: &str) -> Result<Vec<&'a str>, ReadError> {
        if !self.take("{") {
            return Ok(vec![self.must(what)?]);
        }
        let mut values = Vec::new();
        loop {
            match self.must("`}`")? {
                "}" => return Ok(values),
                value => values.push(value),
            }
        }
    }

    /// Addresses and networks.
    pub(super) fn nets(&mut self) -> Result<Vec<IpNet>, ReadError> {
        let values = self.values("an address")?;
        values.iter().map(|value| self.net(value)).collect()
    }

    fn net(&self, text: &str) -> Result<IpNet, ReadError> {
        let net = text.parse::<IpNet>().ok();
        net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            .ok_or_else(|| self.error(format!("`{text}` is not an address")))
    }

    /// Ports, of which `dash` joins the first and the last of a range.
    pub(super) fn ports(&mut self, dash: char) -> Result<Vec<Ports>, ReadError> {
        let values = self.values("a port")?;
        let read = |text: &str| text.replace(dash, "-").parse().map_err(|error| self.error(error));
        values.into_iter().map(read).collect()
    }

    /// A value that parses itself.
    pub(super) fn parse<T: std::str::FromStr>(&self, text: &str, what: &str) -> Result<T, ReadError> {
        text.parse()
            .map_err(|_| self.error(format!("`{text}` is not {what}")))
    }

    /// Fails unless this is the end.
    pub(super) fn end(mut self) -> Result<(), ReadError> {
        match self.next() {
            None => Ok(()),
            Some(word) => Err(self.error(format!("`{word}` is not expected here"))),
        }
    }

    pub(super) fn error(&self, what: impl Into<String>) -> ReadError {
        ReadError {
            line: self.line,
            what: what.into(),
        }
    }
}
