//! GitHub's own description of its API, as a judge: whether a request, an answer or a webhook looks as GitHub says
//! it does, and the smallest value that does.
//!
//! Only what the description uses of JSON Schema is known; a word nobody here knows fails the check, so that a new
//! version of the description cannot be half understood.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// The description of the REST API, reduced by `scripts/github-schemas.sh`.
static API: LazyLock<Value> = LazyLock::new(|| parse(include_str!("../../fixtures/github/openapi.json")));

/// The schemas of the webhooks, reduced likewise.
static WEBHOOKS: LazyLock<Value> =
    LazyLock::new(|| parse(include_str!("../../fixtures/github/webhooks.json")));

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("the fixtures are JSON")
}

/// Where GitHub does what its description forbids: the head repository of a run is null when the fork is deleted.
const TRUER: [&str; 1] = ["head_repository: is null, not of type \"object\""];

/// An operation of the API that a request asked for.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// Its path with the names of the parameters, such as `/repos/{owner}/{repo}/actions/runs`.
    pub(crate) template: &'static str,
    method: String,
    values: Vec<(&'static str, String)>,
}

impl Operation {
    /// The operation that a request is for, or `None` if the description has none.
    pub(crate) fn of(method: &str, path: &str) -> Option<Self> {
        let method = method.to_ascii_lowercase();
        let found = members(&API["paths"]).filter_map(|(template, item)| {
            item.get(&method)?;
            let values = captures(template, path)?;
            Some(Self {
                template,
                method: method.clone(),
                values,
            })
        });
        // `/orgs/{org}/actions/runners/{runner_id}` also fits `…/generate-jitconfig`: the fewest captures win.
        found.min_by_key(|operation| operation.values.len())
    }

    fn described(&self) -> &'static Value {
        &API["paths"][self.template][&self.method]
    }

    /// What is wrong with a request.
    pub(crate) fn request_errors(&self, query: &[(String, String)], body: &[u8]) -> Vec<String> {
        let mut errors = Vec::new();
        let parameters: Vec<_> = items(&self.described()["parameters"]).map(resolve).collect();
        for (name, value) in query {
            match parameters
                .iter()
                .find(|it| it["in"] == "query" && it["name"] == name.as_str())
            {
                Some(parameter) => check_text(&parameter["schema"], value, &format!("?{name}"), &mut errors),
                None => errors.push(format!("?{name}: GitHub knows no such parameter here")),
            }
        }
        for (name, value) in &self.values {
            if let Some(parameter) = parameters
                .iter()
                .find(|it| it["in"] == "path" && it["name"] == *name)
            {
                check_text(&parameter["schema"], value, name, &mut errors);
            }
        }
        let wanted = &self.described()["requestBody"];
        if wanted.is_null() || (body.is_empty() && wanted["required"] != true) {
            return errors;
        }
        match serde_json::from_slice(body) {
            Ok(value) => check(
                &wanted["content"]["application/json"]["schema"],
                &value,
                "body",
                &mut errors,
            ),
            Err(error) => errors.push(format!("body: no JSON: {error}")),
        }
        errors
    }

    /// What is wrong with an answer. An error that the description does not list needs only look like one.
    pub(crate) fn answer_errors(&self, status: u16, body: &[u8]) -> Vec<String> {
        let listed = resolve(&self.described()["responses"][status.to_string()]);
        let mut errors = Vec::new();
        let schema = match &listed["content"]["application/json"]["schema"] {
            Value::Null if status >= 400 => &json!({"$ref": "#/components/schemas/basic-error"}),
            Value::Null if listed.is_null() => return vec![format!("{status}: GitHub never answers so")],
            Value::Null if body.is_empty() => return errors,
            Value::Null => return vec![format!("{status}: has a body, which GitHub's has not")],
            schema => schema,
        };
        match serde_json::from_slice(body) {
            Ok(value) => check(schema, &value, "answer", &mut errors),
            Err(error) => errors.push(format!("answer: no JSON: {error}")),
        }
        errors.retain(|error| !TRUER.iter().any(|it| error.ends_with(it)));
        errors
    }
}

/// What is wrong with the payload of a `workflow_job` webhook.
pub(crate) fn webhook_errors(payload: &Value) -> Vec<String> {
    let action = payload["action"].as_str().unwrap_or_default();
    let schema = &WEBHOOKS["definitions"][format!("workflow_job${action}")];
    if schema.is_null() {
        return vec![format!("GitHub sends no workflow_job with the action {action:?}")];
    }
    let mut errors = Vec::new();
    check(schema, payload, "payload", &mut errors);
    errors
}

/// A value of a named schema of the API: `given`, and for all it lacks the smallest that the schema allows.
pub(crate) fn sample(name: &str, given: Value) -> Value {
    let schema = &API["components"]["schemas"][name];
    assert!(!schema.is_null(), "the description has a schema {name}");
    fill(schema, Some(given))
}

/// A value of a named schema of the webhooks, like [`sample`].
pub(crate) fn webhook_sample(name: &str, given: Value) -> Value {
    fill(&WEBHOOKS["definitions"][name], Some(given))
}

fn fill(schema: &'static Value, given: Option<Value>) -> Value {
    let schema = resolve(schema);
    let mut object = match given {
        Some(Value::Object(object)) => object,
        Some(value) => return value,
        None => Map::new(),
    };
    if let Some(parts) = schema["allOf"].as_array() {
        let start = Value::Object(object);
        return parts.iter().fold(start, |value, part| fill(part, Some(value)));
    }
    if let Some(first) = ["anyOf", "oneOf"].iter().find_map(|key| schema[*key].get(0)) {
        return fill(first, (!object.is_empty()).then_some(Value::Object(object)));
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match type_of(schema) {
        "object" => {
            let required: Vec<_> = items(&schema["required"]).filter_map(Value::as_str).collect();
            for (name, property) in members(&schema["properties"]) {
                let given = object.remove(name);
                if given.is_some() || required.contains(&name) {
                    // Not every address is marked as one, but clients parse them all.
                    let filled = match fill(property, given) {
                        Value::String(text)
                            if text.is_empty() && (name.ends_with("url") || name == "href") =>
                        {
                            json!("https://api.github.com/")
                        }
                        value => value,
                    };
                    object.insert(name.to_owned(), filled);
                }
            }
            Value::Object(object)
        }
        "array" => json!([]),
        "integer" | "number" => json!(1),
        "boolean" => json!(false),
        "null" => Value::Null,
        _ => match schema["format"].as_str() {
            Some("date-time") => json!("2026-01-01T00:00:00Z"),
            Some("uri" | "uri-template") => json!("https://api.github.com/"),
            _ => json!(""),
        },
    }
}

/// The first type that a schema allows.
fn type_of(schema: &Value) -> &str {
    let stated = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    stated.unwrap_or(if schema["properties"].is_object() {
        "object"
    } else {
        "string"
    })
}

/// What a schema that is only a reference refers to.
fn resolve(schema: &Value) -> &Value {
    let Some(reference) = schema["$ref"].as_str() else {
        return schema;
    };
    let pointer = reference.trim_start_matches('#');
    let found = API.pointer(pointer).or_else(|| WEBHOOKS.pointer(pointer));
    found.unwrap_or_else(|| panic!("the description refers to {reference}, which it has not"))
}

/// Adds to `errors` all that keeps a value from being what a schema says.
fn check(schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    let schema = resolve(schema);
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    for (word, demand) in members(schema) {
        match word {
            "type" => {
                let types: Vec<_> = demand.as_str().map_or_else(
                    || items(demand).filter_map(Value::as_str).collect(),
                    |it| vec![it],
                );
                if !types.iter().any(|it| is_a(it, value)) {
                    errors.push(format!("{at}: is {value}, not of type {demand}"));
                }
            }
            "enum" if !items(demand).any(|it| it == value) => {
                errors.push(format!("{at}: is {value}, not one of {demand}"))
            }
            "const" if demand != value => errors.push(format!("{at}: is {value}, not {demand}")),
            "required" => {
                let missing = items(demand)
                    .filter_map(Value::as_str)
                    .filter(|it| value.is_object() && value.get(it).is_none());
                errors.extend(missing.map(|name| format!("{at}: lacks {name}")));
            }
            "properties" => {
                for (name, property) in members(demand) {
                    if let Some(value) = value.get(name) {
                        check(property, value, &format!("{at}.{name}"), errors);
                    }
                }
            }
            "additionalProperties" => check_others(schema, demand, value, at, errors),
            "items" => items(value)
                .enumerate()
                .for_each(|(i, it)| check(demand, it, &format!("{at}[{i}]"), errors)),
            "minItems" | "maxItems" => {
                let count = u64::try_from(items(value).count()).unwrap_or(u64::MAX);
                let limit = demand.as_u64().expect("a limit is a number");
                if value.is_array()
                    && (if word == "minItems" {
                        count < limit
                    } else {
                        count > limit
                    })
                {
                    errors.push(format!("{at}: has {count} items, which breaks {word} {limit}"));
                }
            }
            "allOf" => items(demand).for_each(|part| check(part, value, at, errors)),
            "anyOf" | "oneOf" => check_any(demand, value, at, errors),
            "format" => check_format(demand, value, at, errors),
            "enum" | "const" | "nullable" => {}
            _ => errors.push(format!(
                "{at}: the description says {word}, which this check does not know"
            )),
        }
    }
}

fn check_others(schema: &Value, demand: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    for (name, item) in members(value).filter(|(name, _)| schema["properties"].get(name).is_none()) {
        match demand {
            Value::Bool(true) => {}
            Value::Bool(false) => errors.push(format!("{at}: GitHub knows no {name} here")),
            schema => check(schema, item, &format!("{at}.{name}"), errors),
        }
    }
}

/// One of several schemas must fit; if none does, the complaints of the nearest are added. `oneOf` is read as
/// `anyOf`, because GitHub's own alternatives overlap.
fn check_any(demand: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    let complaints = items(demand).map(|part| {
        let mut errors = Vec::new();
        check(part, value, at, &mut errors);
        errors
    });
    errors.extend(complaints.min_by_key(Vec::len).unwrap_or_default());
}

fn check_format(format: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    let Some(text) = value.as_str() else { return };
    let fits = match format.as_str() {
        Some("date-time") => {
            text.len() >= 20
                && text.as_bytes()[10] == b'T'
                && text.starts_with(|it: char| it.is_ascii_digit())
        }
        Some("uri" | "uri-template") => text.contains("://"),
        _ => true,
    };
    if !fits {
        errors.push(format!("{at}: is {text:?}, which is no {format}"));
    }
}

/// Checks a piece of a URL, which is text whatever its type.
fn check_text(schema: &Value, text: &str, at: &str, errors: &mut Vec<String>) {
    let value = match type_of(resolve(schema)) {
        "integer" => text.parse::<i64>().map_or_else(|_| json!(text), |it| json!(it)),
        "boolean" => text.parse::<bool>().map_or_else(|_| json!(text), |it| json!(it)),
        _ => json!(text),
    };
    check(schema, &value, at, errors);
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

/// What stands for the parameters of a path template in a path, if the path fits it.
fn captures(template: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let (wanted, given): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    if wanted.len() != given.len() {
        return None;
    }
    let mut values = Vec::new();
    for (wanted, given) in wanted.into_iter().zip(given) {
        match wanted.strip_prefix('{').and_then(|it| it.strip_suffix('}')) {
            Some(name) => values.push((name, given.to_owned())),
            None if wanted != given => return None,
            None => {}
        }
    }
    Some(values)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
}
