//! The values that `${{ matrix.… }}` can have.

use super::yaml::Node;

/// The most alternatives that are told apart.
const ALTERNATIVES_MAX: usize = 256;

/// Every alternative of `texts`, which belong together, with the values of `matrix` put in. An expression whose
/// values the file does not have stays as it is.
pub(super) fn expand(texts: Vec<String>, matrix: Option<&Node>) -> Vec<Vec<String>> {
    let mut complete = Vec::new();
    let mut open = vec![texts];
    while let Some(texts) = open.pop() {
        match alternatives(&texts, matrix) {
            Some(more) if complete.len() + open.len() + more.len() <= ALTERNATIVES_MAX => open.extend(more),
            Some(_) | None => complete.push(texts),
        }
    }
    // What was found last was looked at first.
    complete.reverse();
    complete
}

/// `texts` with every value in place of the first expression that has any.
fn alternatives(texts: &[String], matrix: Option<&Node>) -> Option<Vec<Vec<String>>> {
    let expressions = texts.iter().flat_map(|text| text.split("${{").skip(1));
    let inner = expressions.filter_map(|rest| Some(rest.split_once("}}")?.0));
    let (inner, values) = inner
        .map(|inner| (inner, values(inner, matrix)))
        .find(|(_, values)| !values.is_empty())?;
    let whole = format!("${{{{{inner}}}}}");
    let put_in = |value: &str| texts.iter().map(|text| text.replace(&whole, value)).collect();
    Some(values.into_iter().map(put_in).collect())
}

/// The values of an expression of the form `matrix.NAME` or `matrix.NAME.KEY`.
fn values<'a>(expression: &str, matrix: Option<&'a Node>) -> Vec<&'a str> {
    let Some(path) = expression.trim().strip_prefix("matrix.") else {
        return Vec::new();
    };
    let Some(matrix) = matrix else {
        return Vec::new();
    };
    let (name, key) = path.split_once('.').unwrap_or((path, ""));
    let own = matrix.get(name).map(Node::items).unwrap_or_default();
    let included = matrix.get("include").map(Node::items).unwrap_or_default();
    let nodes = own
        .iter()
        .map(AsRef::as_ref)
        .chain(included.iter().filter_map(|node| node.get(name)));
    let mut values: Vec<&str> = Vec::new();
    for node in nodes {
        let value = if key.is_empty() {
            node.text()
        } else {
            node.get_text(key)
        };
        // A value with an expression is known to nobody yet, and could name itself.
        if let Some(value) = value.filter(|value| !value.contains("${{"))
            && !values.contains(&value)
        {
            values.push(value);
        }
        if values.len() > ALTERNATIVES_MAX {
            break;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::scan::yaml;

    fn expanded(texts: &[&str], matrix: &str) -> Vec<Vec<String>> {
        let matrix = yaml::parse("w.yml", matrix).unwrap();
        expand(
            texts.iter().map(|text| (*text).to_owned()).collect(),
            Some(&matrix),
        )
    }

    #[test]
    fn values_come_from_lists_and_included_combinations() {
        let matrix = "{os: [a, b], include: [{os: c}, {os: a}, {other: d}]}";
        assert_eq!(expanded(&["${{ matrix.os }}"], matrix), [["a"], ["b"], ["c"]]);
    }

    #[test]
    fn an_expression_has_the_same_value_wherever_it_stands() {
        let matrix = "{os: [{name: linux, arch: x}, {name: mac, arch: y}]}";
        assert_eq!(
            expanded(
                &["self-hosted", "${{matrix.os.name}}", "on-${{matrix.os.name}}"],
                matrix
            ),
            [
                ["self-hosted", "linux", "on-linux"],
                ["self-hosted", "mac", "on-mac"]
            ]
        );
    }

    #[test]
    fn what_is_not_known_stays() {
        let texts = ["${{ inputs.os }}"];
        assert_eq!(expanded(&texts, "{os: ['${{ matrix.os }}']}"), [texts]);
        assert_eq!(
            expanded(&["${{ matrix.os }}"], "{os: '${{ fromJSON(x) }}'}"),
            [["${{ matrix.os }}"]]
        );
    }

    #[test]
    fn alternatives_are_bounded() {
        let values = (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let matrix = format!("{{a: [{values}], b: [{values}]}}");
        assert!(expanded(&["${{matrix.a}} ${{matrix.b}}"], &matrix).len() <= ALTERNATIVES_MAX);
    }
}
