//! The signature of a delivery: HMAC with SHA-256 of the body (GitHub, "Validating webhook deliveries").

use std::fmt;

use aws_lc_rs::hmac;

use crate::github::secret::Secret;

/// Bytes of a signature.
const LENGTH: usize = 32;

/// A signature, which says as much about a body as the body itself.
pub(super) type Tag = [u8; LENGTH];

/// What deliveries are signed with.
pub(super) struct Key(hmac::Key);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Key {
    /// The key that a secret is; an empty one is none.
    pub(super) fn new(secret: &Secret) -> Option<Self> {
        let text = secret.expose();
        (!text.trim().is_empty()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
    }

    /// The signature in `header`, when it is that of `body`. The comparison takes as long whatever it finds.
    pub(super) fn verify(&self, header: &str, body: &[u8]) -> Option<Tag> {
        let tag = tag(header)?;
        hmac::verify(&self.0, body, &tag).is_ok().then_some(tag)
    }
}

/// The signature in a header, `sha256=` and 64 digits.
fn tag(header: &str) -> Option<Tag> {
    let digits = header.strip_prefix("sha256=")?.as_bytes();
    let mut tag = [0; LENGTH];
    if digits.len() != 2 * LENGTH {
        return None;
    }
    for (place, pair) in tag.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        *place = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new(&Secret::new("It's a Secret to Everybody")).unwrap()
    }

    /// The example of GitHub's "Validating webhook deliveries".
    const HEADER: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn githubs_own_example_is_accepted_and_any_other_byte_is_not() {
        assert!(key().verify(HEADER, b"Hello, World!").is_some());
        assert!(key().verify(HEADER, b"Hello, World?").is_none());
        assert!(key().verify(HEADER, b"").is_none());
        for at in "sha256=".len()..HEADER.len() {
            let mut other = HEADER.to_owned();
            let flipped = if &HEADER[at..=at] == "0" { "1" } else { "0" };
            other.replace_range(at..=at, flipped);
            assert!(key().verify(&other, b"Hello, World!").is_none(), "{other}");
        }
        let other = Key::new(&Secret::new("It's a Secret to Everybody ")).unwrap();
        assert!(other.verify(HEADER, b"Hello, World!").is_none());
    }

    #[test]
    fn what_is_no_signature_verifies_nothing() {
        let digits = &HEADER["sha256=".len()..];
        for header in [
            String::new(),
            "sha256=".to_owned(),
            digits.to_owned(),
            format!("sha1={digits}"),
            format!("sha256={}", &digits[..62]),
            format!("sha256={digits}00"),
            format!("sha256={}", "zz".repeat(32)),
            format!("sha256=+{}", &digits[1..]),
            format!("sha256={}", "é".repeat(32)),
            format!(" {HEADER}"),
        ] {
            assert!(key().verify(&header, b"Hello, World!").is_none(), "{header}");
        }
    }

    #[test]
    fn an_empty_secret_is_none_and_no_key_is_printed() {
        for empty in ["", " ", "\n"] {
            assert!(Key::new(&Secret::new(empty)).is_none());
        }
        assert_eq!(format!("{:?}", key()), "…");
    }
}
