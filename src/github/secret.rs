//! Text that must not be seen: tokens, keys, credentials.
//!
//! It can be neither printed nor serialised, so that no log, no error and no answer holds it by mistake. Whoever needs
//! the text says so with [`Secret::expose`], and every such place is easily found.

use std::fmt;
use std::hint::black_box;

use serde::Deserialize;

/// A secret text. Overwritten before its memory is given back, which is a courtesy and no promise: whoever parsed or
/// copied the text before may have left it elsewhere.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Otherwise the compiler may leave out what nobody reads.
        black_box(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_printing_shows_it_or_its_length() {
        let secret = Secret::new("hunter2");
        for text in [
            format!("{secret:?}"),
            format!("{secret:#?}"),
            format!("{secret:40?}"),
            format!("{:?}", secret.clone()),
        ] {
            assert_eq!(text, "…");
        }
        assert_eq!(format!("{:?}", Some(&secret)), "Some(…)");
    }

    #[test]
    fn who_asks_gets_the_text() {
        assert_eq!(Secret::new("hunter2").clone().expose(), "hunter2");
        assert_eq!(Secret::from("a".to_owned()).expose(), "a");
    }
}
