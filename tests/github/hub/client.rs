//! The smallest HTTP client: one request, one connection, one answer.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::Hub;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, or null.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends a request to `http://HOST:PORT…` and reads the answer to its end.
///
/// # Errors
/// When the connection breaks, or what comes is no whole answer.
pub(crate) fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
    let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(|| broken("no http URL"))?;
    let (host, target) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = format!(
        "{method} /{target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &[name, ": ", value, "\r\n"].concat();
    }
    head += "\r\n";
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .ok_or_else(|| broken("no end of the headers"))?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|it| it.split(' ').nth(1)?.parse().ok())
        .ok_or_else(|| broken("no status"))?;
    let headers: BTreeMap<_, _> = lines
        .filter_map(|it| it.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = bytes.split_off(end + 4);
    let length = headers
        .get("content-length")
        .and_then(|it| it.parse().ok())
        .unwrap_or(0_usize);
    if body.len() < length {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the body ends early",
        ));
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

/// Asks the REST API as a well-behaved program does.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    url: String,
    token: String,
}

impl Caller {
    /// Asks with a token.
    pub(crate) fn new(hub: &Hub, token: &str) -> Self {
        Self {
            url: hub.url(),
            token: token.to_owned(),
        }
    }

    /// Sends a request with more headers.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &Value,
    ) -> io::Result<Answer> {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![
            ("authorization", bearer.as_str()),
            ("user-agent", "ephemerd-tests"),
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", "2022-11-28"),
        ];
        headers.extend(more);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        request(method, &format!("{}{path}", self.url), &headers, body.as_bytes())
    }

    /// The answer to a GET.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], &Value::Null)
            .expect("an answer comes")
    }

    /// The answer to a POST.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], body).expect("an answer comes")
    }

    /// The answer to a DELETE.
    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], &Value::Null)
            .expect("an answer comes")
    }

    /// Makes a runner of a repository; gives its id and its configuration.
    pub(crate) fn runner(&self, repository: &str, name: &str, labels: &[&str]) -> (u64, String) {
        let asked = json!({"name": name, "runner_group_id": 1, "labels": labels, "work_folder": "_work"});
        let made = self.post(
            &format!("/repos/{repository}/actions/runners/generate-jitconfig"),
            &asked,
        );
        assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
        let made = made.json();
        let jit = made["encoded_jit_config"]
            .as_str()
            .expect("there is a configuration")
            .to_owned();
        (made["runner"]["id"].as_u64().expect("a runner has an id"), jit)
    }
}
