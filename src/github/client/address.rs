//! Where the API is, and which addresses are part of it.

use std::net::IpAddr;

use http::Uri;

use super::answer::is_same_server;
use super::error::SetupError;

/// The API of github.com.
pub const GITHUB_COM: &str = "https://api.github.com";

/// The address of an API, without a slash at its end.
#[derive(Debug, Clone)]
pub(super) struct Base {
    text: String,
    uri: Uri,
}

impl Base {
    /// Reads an address. Without TLS anybody on the way could read the credential: only this host is spoken to so.
    pub(super) fn parse(text: &str) -> Result<Self, SetupError> {
        let wrong = || SetupError::Url(text.to_owned());
        let trimmed = text.trim_end_matches('/');
        let uri: Uri = trimmed.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let is_plain = uri.authority().is_some_and(|it| !it.as_str().contains('@')) && uri.query().is_none();
        if !is_plain || !is_private(&uri, host) || trimmed.contains('#') {
            return Err(wrong());
        }
        let text = trimmed.to_owned();
        Ok(Self { text, uri })
    }

    /// As it was written, without a slash at its end.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// A path of the API, or an address that GitHub gave, if it is of the same API.
    pub(super) fn join(&self, target: &str) -> Option<Uri> {
        if target.starts_with('/') {
            return format!("{}{target}", self.text).parse().ok();
        }
        let uri: Uri = target.parse().ok()?;
        let prefix = self.uri.path().trim_end_matches('/');
        let is_below = uri
            .path()
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('/'));
        (is_same_server(&self.uri, &uri) && is_below).then_some(uri)
    }
}

/// An address that GitHub gave and that a credential is sent to; `None` when others could read it on the way.
pub(super) fn private(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let is_plain = uri.authority().is_some_and(|it| !it.as_str().contains('@'));
    let host = uri.host().filter(|host| !host.is_empty())?;
    (is_plain && is_private(&uri, host)).then_some(uri)
}

fn is_private(uri: &Uri, host: &str) -> bool {
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_this_host(host),
        _ => false,
    }
}

fn is_this_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_spoken_to_without_tls() {
        for good in [
            GITHUB_COM,
            "https://github.example.com/api/v3/",
            "http://127.0.0.1:4567",
            "http://[::1]:80",
            "http://localhost",
        ] {
            assert!(Base::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "api.github.com",
            "http://api.github.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.1",
            "ftp://api.github.com",
            "https://user:secret@api.github.com",
            "https://api.github.com?x=1",
            "https://",
        ] {
            assert!(matches!(Base::parse(bad), Err(SetupError::Url(_))), "{bad}");
        }
        assert!(private("https://broker.example/message?sessionId=1").is_some());
        assert!(private("http://127.0.0.1:1/message?sessionId=1").is_some());
        for bad in [
            "http://broker.example/",
            "https://u@broker.example/",
            "/message",
            "",
        ] {
            assert!(private(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn pages_are_of_the_same_api() {
        let base = Base::parse("https://ghe.example/api/v3/").unwrap();
        let join = |target: &str| base.join(target).map(|it| it.to_string());
        assert_eq!(
            join("/rate_limit").as_deref(),
            Some("https://ghe.example/api/v3/rate_limit")
        );
        let next = "https://ghe.example/api/v3/repositories/1/actions/runs?page=2";
        assert_eq!(join(next).as_deref(), Some(next));
        for elsewhere in [
            "https://ghe.example/other",
            "https://ghe.example/api/v3x/y",
            "https://evil.example/api/v3/x",
            "http://ghe.example/api/v3/x",
            "",
        ] {
            assert_eq!(join(elsewhere), None, "{elsewhere}");
        }
        let github = Base::parse(GITHUB_COM).unwrap();
        assert!(
            github
                .join("https://api.github.com/repositories/1?page=2")
                .is_some()
        );
    }
}
