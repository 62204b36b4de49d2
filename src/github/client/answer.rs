//! What an answer is, before anybody looks into it: pure, from status, headers and body.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, LINK, LOCATION, RETRY_AFTER};
use http::{Method, StatusCode, Uri};
use serde::Deserialize;

use super::error::{ClientError, Oddity};
use crate::github::limits::Told;
use crate::github::scale_set::Trouble;

/// How much of GitHub's words an error repeats, in characters.
const MESSAGE: usize = 300;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// GitHub's own form of an error.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<serde_json::Value>,
    /// The service behind scale sets names an exception instead.
    #[serde(default, rename = "typeName")]
    type_name: String,
}

impl Answer {
    fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn number(&self, name: &'static str) -> Option<u64> {
        self.header(HeaderName::from_static(name))?.trim().parse().ok()
    }

    /// The part that limits depend on.
    pub(super) fn told(&self) -> Told {
        let date = self.header(DATE).and_then(unix_s_of_http_date);
        let is_refusal = matches!(self.status.as_u16(), 403 | 429);
        Told {
            status: self.status.as_u16(),
            limit: self.number("x-ratelimit-limit"),
            remaining: self.number("x-ratelimit-remaining"),
            reset_unix_s: self.number("x-ratelimit-reset"),
            retry_after_s: self
                .header(RETRY_AFTER)
                .and_then(|value| value.trim().parse().ok()),
            date_unix_s: date,
            names_secondary: is_refusal && names_secondary(&self.body),
        }
    }

    /// Whether its headers count requests of the kind that everything here is: others, such as searches, have limits of
    /// their own.
    pub(super) fn is_core(&self) -> bool {
        self.header("x-ratelimit-resource")
            .is_none_or(|resource| resource == "core")
    }

    /// The validator of an answer, if it has one.
    pub(super) fn etag(&self) -> Option<&str> {
        self.header(http::header::ETAG)
    }

    /// Where it says to look instead.
    pub(super) fn location(&self) -> Option<&str> {
        self.status
            .is_redirection()
            .then(|| self.header(LOCATION))
            .flatten()
    }

    /// The next page of a list.
    pub(super) fn next(&self) -> Option<String> {
        next_of(self.header(LINK)?)
    }

    /// What is wrong with its form, if it is not in JSON. An answer without a body need not be.
    pub(super) fn oddity(&self) -> Option<Oddity> {
        let kind = self.header(CONTENT_TYPE).unwrap_or_default();
        let essence = kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let is_json = essence
            .strip_prefix("application/")
            .is_some_and(|it| it == "json" || it.ends_with("+json"));
        match essence.as_str() {
            _ if self.body.is_empty() || is_json => None,
            "text/html" | "application/xhtml+xml" => Some(Oddity::Html),
            _ => Some(Oddity::ContentType(clean(kind, None))),
        }
    }

    /// The body without the mark that some servers put before it.
    pub(super) fn json(&self) -> &[u8] {
        self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.body)
    }

    /// What an answer that is no success means; `credential` is what was sent, and is never repeated.
    pub(super) fn error(&self, asked: &str, credential: Option<&str>) -> ClientError {
        let (asked, status) = (asked.to_owned(), self.status.as_u16());
        if self.status.is_server_error() {
            return ClientError::Server { asked, status };
        }
        if let Some(oddity) = self.oddity() {
            return ClientError::NotGitHub { asked, oddity };
        }
        let message = self.message(credential);
        match status {
            300..=399 => {
                let to = clean(self.header(LOCATION).unwrap_or_default(), credential);
                ClientError::Redirected { asked, to }
            }
            401 => ClientError::Unauthorized { asked, message },
            403 => {
                let needs = self.header("x-accepted-github-permissions");
                let needs = needs.map(|needs| clean(needs, credential));
                ClientError::Forbidden {
                    asked,
                    message,
                    needs,
                }
            }
            404 | 410 => ClientError::NotFound { asked, message },
            409 => ClientError::Conflict { asked, message },
            _ => ClientError::Unprocessable {
                asked,
                status,
                message,
            },
        }
    }

    /// The exception that a refusal of the service behind scale sets names.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let Refusal { type_name, .. } = serde_json::from_slice(self.json()).ok()?;
        Trouble::of(&type_name)
    }

    fn message(&self, credential: Option<&str>) -> String {
        let Refusal { message, errors, .. } = serde_json::from_slice(self.json()).unwrap_or_default();
        // Errors of validation are objects with a message, or texts.
        let more = errors
            .iter()
            .filter_map(|error| error.as_str().or_else(|| error["message"].as_str()));
        let all: Vec<&str> = std::iter::once(message.as_str())
            .chain(more)
            .filter(|it| !it.is_empty())
            .collect();
        match all.is_empty() {
            true => self.status.to_string(),
            false => clean(&all.join("; "), credential),
        }
    }
}

/// What GitHub's tokens begin with (docs.github.com, "About authentication to GitHub"), and JSON web tokens and JIT
/// configurations, which are an object in base64: one may be echoed that is not the one that was sent.
const TOKENS: [&str; 7] = ["github_pat_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "eyJ"];

/// Words of somebody else for people: without control characters, not long, and without the credential or another token.
pub(super) fn clean(text: &str, credential: Option<&str>) -> String {
    let mut text = match credential {
        Some(credential) if !credential.is_empty() => text.replace(credential, "…"),
        _ => text.to_owned(),
    };
    for beginning in TOKENS {
        while let Some(at) = text.find(beginning) {
            let is_part =
                |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/' | '=');
            let rest = &text[at..];
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            text.replace_range(at..at + end, "…");
        }
    }
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.take(MESSAGE).collect()
}

/// Whether a refusal is one of the secondary limits, which have no header. Older servers speak of abuse.
fn names_secondary(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    text.contains("secondary rate limit") || text.contains("abuse detection")
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since 1970.
fn unix_s_of_http_date(text: &str) -> Option<u64> {
    let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    u64::try_from(date.timestamp()).ok()
}

/// `2026-11-25T20:37:47Z` in seconds since 1970.
pub(super) fn unix_s_of_iso(text: &str) -> Option<u64> {
    let date = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    u64::try_from(date.timestamp()).ok()
}

/// The target of `rel="next"` in a `Link` header (RFC 8288).
fn next_of(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (target, parameters) = part.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters
            .split(';')
            .any(|it| matches!(it.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| target.to_owned())
    })
}

/// Where a redirect may be followed to: once, for questions only, and never to another server, which would be sent the
/// credential. GitHub redirects from the old names of repositories.
pub(super) fn followed(method: &Method, from: &Uri, location: &str) -> Option<Uri> {
    if method != Method::GET {
        return None;
    }
    if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(location.parse().ok()?);
        return Uri::from_parts(parts).ok();
    }
    let to: Uri = location.parse().ok()?;
    is_same_server(from, &to).then_some(to)
}

/// Whether two addresses are on one server: scheme, host and port.
pub(super) fn is_same_server(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| {
        let standard = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        uri.port_u16().unwrap_or(standard)
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    let has_user = |uri: &Uri| uri.authority().is_some_and(|it| it.as_str().contains('@'));
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other) && !has_user(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn limits_are_read_from_headers_and_body() {
        let headers = [
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "784111800"),
            ("retry-after", " 7 "),
        ];
        let told = answer(
            403,
            &headers,
            r#"{"message":"You have exceeded a Secondary Rate Limit."}"#,
        )
        .told();
        assert_eq!(
            told,
            Told {
                status: 403,
                limit: Some(5000),
                remaining: Some(0),
                reset_unix_s: Some(784_111_800),
                retry_after_s: Some(7),
                date_unix_s: Some(784_111_777),
                names_secondary: true,
            }
        );
        // A job may be called so: only refusals are read.
        assert!(!answer(200, &[], "secondary rate limit").told().names_secondary);
        assert_eq!(unix_s_of_iso("2025-12-31T23:59:59Z"), Some(1_767_225_599));
    }

    #[test]
    fn the_next_page_is_found_among_the_links() {
        let link = r#"<https://api.github.com/x?page=1>; rel="prev", <https://api.github.com/x?a=b&page=3>; rel="next", <https://api.github.com/x?page=9>; rel="last""#;
        assert_eq!(
            next_of(link).as_deref(),
            Some("https://api.github.com/x?a=b&page=3")
        );
        assert_eq!(next_of(r#"<https://api.github.com/x?page=1>; rel="prev""#), None);
        assert_eq!(next_of("nonsense, <"), None);
    }

    #[test]
    fn a_redirect_is_followed_to_the_same_server_only() {
        let from: Uri = "https://api.github.com/repos/o/old".parse().unwrap();
        let get = |to| followed(&Method::GET, &from, to).map(|it| it.to_string());
        assert_eq!(
            get("/repositories/7").as_deref(),
            Some("https://api.github.com/repositories/7")
        );
        let same = "https://API.github.com:443/repositories/7";
        assert_eq!(get(same).as_deref(), Some(same));
        for elsewhere in [
            "https://github.com/o/new",
            "https://api.github.com.evil.example/",
            "https://api.github.com@evil.example/",
            "https://user@api.github.com/",
            "http://api.github.com/repositories/7",
            "https://api.github.com:8443/",
            "//evil.example/",
            "",
        ] {
            assert_eq!(get(elsewhere), None, "{elsewhere}");
        }
        assert_eq!(followed(&Method::DELETE, &from, "/repositories/7"), None);
    }

    #[test]
    fn a_page_for_people_is_never_taken_for_a_refusal_of_github() {
        let html = [("content-type", "text/html; charset=utf-8")];
        for status in [401, 403, 404, 409, 422] {
            let error = answer(status, &html, "<html>").error("GET /x", None);
            assert!(
                matches!(
                    error,
                    ClientError::NotGitHub {
                        oddity: Oddity::Html,
                        ..
                    }
                ),
                "{status}"
            );
        }
        assert!(matches!(
            answer(503, &html, "<html>").error("GET /x", None),
            ClientError::Server { status: 503, .. }
        ));
        let plain = answer(200, &[("content-type", "text/plain")], "{}");
        assert_eq!(plain.oddity(), Some(Oddity::ContentType("text/plain".into())));
        let github = answer(
            200,
            &[("content-type", "application/vnd.github+json; charset=utf-8")],
            "{}",
        );
        assert_eq!(github.oddity(), None);
        assert_eq!(answer(204, &[], "").oddity(), None);
    }

    #[test]
    fn githubs_words_are_kept_and_the_credential_in_them_is_not() {
        let json = [("content-type", "application/json")];
        let body = r#"{"message":"Validation Failed","errors":["no group",{"message":"token ghs_1\n is bad","code":"x"}]}"#;
        let ClientError::Unprocessable { message, .. } =
            answer(422, &json, body).error("POST /x", Some("ghs_1"))
        else {
            panic!("another error");
        };
        assert_eq!(message, "Validation Failed; no group; token …  is bad");
        let ClientError::NotFound { message, .. } = answer(404, &[], "").error("GET /x", None) else {
            panic!("another error");
        };
        assert_eq!(message, "404 Not Found");
        let others = "ghs_abc,github_pat_1_2: eyJh.bc-d_=/x. (ghp_)";
        assert_eq!(clean(others, None), "…,…: … (…)");
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(5000));
        assert!(answer(400, &json, &long).error("GET /x", None).to_string().len() < 400);
    }
}
