//! Who may do what: the App's JSON web tokens, installation tokens, personal tokens.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::clock::iso;
use super::schema::sample;
use super::state::{Installation, State, Token};
use super::wire::{Call, Reply};

/// The client id of the App.
pub(crate) const CLIENT_ID: &str = "Iv23liEphemerdTests";
/// The numeric id of the App, which is accepted in its place.
pub(crate) const APP_ID: u64 = 4711;

/// The key of the App; every process has its own.
static KEY: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("a key can be made"));

/// The private key of the App as GitHub would let one download it, in PKCS #8.
pub(crate) fn app_key_pem() -> String {
    let der: Pkcs8V1Der<'_> = KEY.as_der().expect("a key can be written");
    let text = BASE64_STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
    format!("{begin}\n{}\n{end}\n", lines.join("\n"))
}

/// A token as the App makes it, with the given times in Unix seconds.
pub(crate) fn app_jwt(issuer: &str, issued_s: i64, expires_s: i64) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(json!({"alg": "RS256", "typ": "JWT"})),
        part(json!({"iss": issuer, "iat": issued_s, "exp": expires_s}))
    );
    let mut signature = vec![0; KEY.public_modulus_len()];
    KEY.sign(
        &RSA_PKCS1_SHA256,
        &aws_lc_rs::rand::SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .expect("a key signs");
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// Why GitHub refuses a token of the App, if it does.
fn jwt_error(jwt: &str, now_s: i64) -> Option<&'static str> {
    const UNREADABLE: Option<&str> = Some("A JSON web token could not be decoded");
    let Some((signed, signature)) = jwt.rsplit_once('.') else {
        return UNREADABLE;
    };
    let Ok(signature) = BASE64_URL_SAFE_NO_PAD.decode(signature) else {
        return UNREADABLE;
    };
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, KEY.public_key().as_ref());
    let parts: Vec<Value> = signed
        .split('.')
        .filter_map(|it| serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(it).ok()?).ok())
        .collect();
    let [header, claims] = parts.as_slice() else {
        return UNREADABLE;
    };
    if header["alg"] != "RS256" || key.verify(signed.as_bytes(), &signature).is_err() {
        return UNREADABLE;
    }
    let issuer = claims["iss"]
        .as_str()
        .map_or_else(|| claims["iss"].to_string(), str::to_owned);
    if issuer != CLIENT_ID && issuer != APP_ID.to_string() {
        return Some("Integration not found");
    }
    match (claims["iat"].as_i64(), claims["exp"].as_i64()) {
        (Some(issued), _) if issued > now_s => Some(
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        ),
        (Some(_), Some(expires)) if expires <= now_s => Some(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        ),
        (Some(_), Some(expires)) if expires > now_s + 600 => {
            Some("'Expiration time' claim ('exp') is too far in the future")
        }
        (Some(_), Some(_)) => None,
        _ => UNREADABLE,
    }
}

/// Whether a granted level includes a wanted one.
fn grants(granted: Option<&String>, wanted: &str) -> bool {
    granted.is_some_and(|it| it == wanted || it == "write" || it == "admin")
}

impl State {
    /// `POST /app/installations/{id}/access_tokens`: a token no wider than the request asks for.
    pub(super) fn installation_token(&mut self, id: &str, call: &Call) -> Reply {
        if let Some(why) = jwt_error(call.credential(), self.now_s()) {
            return Reply::error(401, why);
        }
        let Some(Installation {
            repositories,
            permissions,
        }) = id
            .parse()
            .ok()
            .and_then(|it: u64| self.installations.get(&it))
            .cloned()
        else {
            return Reply::error(404, "Not Found");
        };
        let asked = call.json();
        let mut granted = permissions.clone();
        if let Some(wanted) = asked["permissions"].as_object() {
            granted = wanted
                .iter()
                .map(|(name, level)| (name.clone(), level.as_str().unwrap_or_default().to_owned()))
                .collect();
            if !granted
                .iter()
                .all(|(name, level)| grants(permissions.get(name), level))
            {
                return Reply::error(
                    422,
                    "The permissions requested are not granted to this installation.",
                );
            }
        }
        // Metadata may always be read.
        granted.insert("metadata".into(), "read".into());
        let mut narrowed = repositories.clone();
        if let Some(names) = asked["repositories"].as_array() {
            let known = |name: &str| {
                self.repositories
                    .keys()
                    .find(|it| it.split_once('/').is_some_and(|it| it.1 == name))
                    .cloned()
            };
            let wanted: Option<_> = names
                .iter()
                .map(|it| {
                    known(it.as_str()?).filter(|it| repositories.as_ref().is_none_or(|all| all.contains(it)))
                })
                .collect();
            if wanted.is_none() {
                return Reply::error(
                    422,
                    "There is at least one repository that does not exist or is not accessible to the parent installation.",
                );
            }
            narrowed = wanted;
        }
        let selection = if narrowed.is_some() { "selected" } else { "all" };
        let expires_s = self.now_s() + self.token_life_s;
        let token = self.secret("ghs_");
        let body = json!({"token": token, "expires_at": iso(expires_s), "permissions": granted, "repository_selection": selection});
        self.tokens.insert(
            token,
            Token {
                app: true,
                repositories: narrowed,
                permissions: granted,
                expires_s,
                revoked: false,
            },
        );
        Reply::json(201, &body)
    }

    /// `GET /app/installations/{id}`: what the App may do where it is installed.
    pub(super) fn installation_of(&self, id: &str, call: &Call) -> Result<Reply, Reply> {
        if let Some(why) = jwt_error(call.credential(), self.now_s()) {
            return Err(Reply::error(401, why));
        }
        let known = id
            .parse()
            .ok()
            .and_then(|it: u64| Some((it, self.installations.get(&it)?)));
        let (id, installation) = known.ok_or_else(|| Reply::error(404, "Not Found"))?;
        let selection = if installation.repositories.is_some() {
            "selected"
        } else {
            "all"
        };
        let given = json!({
            "id": id, "account": Self::user("o"), "permissions": installation.permissions, "repository_selection": selection,
            "app_id": APP_ID, "suspended_at": null,
        });
        Ok(Reply::json(200, &sample("installation", given)))
    }

    /// The token of a request, if it is still good.
    pub(super) fn token_of(&self, call: &Call) -> Result<Token, Reply> {
        let given = self
            .tokens
            .get(call.credential())
            .filter(|it| !it.revoked && it.expires_s > self.now_s());
        given.cloned().ok_or_else(|| {
            Reply::error(
                401,
                if call.credential().is_empty() {
                    "Requires authentication"
                } else {
                    "Bad credentials"
                },
            )
        })
    }

    /// Refuses unless the token of a request has a permission, and sees the repository if one is meant.
    pub(super) fn allow(
        &self,
        call: &Call,
        repository: Option<&str>,
        permission: &str,
        level: &str,
    ) -> Result<(), Reply> {
        let token = self.token_of(call)?;
        if let Some(name) = repository {
            let sees = token.repositories.as_ref().is_none_or(|it| it.contains(name));
            if !sees || !self.repositories.contains_key(name) {
                return Err(Reply::error(404, "Not Found"));
            }
        }
        if grants(token.permissions.get(permission), level) {
            return Ok(());
        }
        let kind = if token.app {
            "integration"
        } else {
            "personal access token"
        };
        let refusal = Reply::error(403, &format!("Resource not accessible by {kind}"));
        Err(refusal.with("x-accepted-github-permissions", format!("{permission}={level}")))
    }
}

/// `actions:read,administration:write` as a map.
pub(super) fn permissions(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter_map(|it| it.split_once(':'))
        .map(|(name, level)| (name.to_owned(), level.to_owned()))
        .collect()
}
