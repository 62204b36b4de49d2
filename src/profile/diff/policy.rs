//! The same for Linux policies: paths, system calls and the network.

use std::collections::{BTreeMap, BTreeSet};

use super::{Difference, Side};
use crate::profile::decide::{Operation, Ruling, decide};
use crate::profile::policy::{Policy, SyscallGroup};

/// Everything that `left` and `right` answer differently, by operation and rule.
pub fn diff(left: &Policy, right: &Policy) -> Vec<Difference> {
    let files = [Operation::FileRead, Operation::FileWrite, Operation::FileExec];
    let questions = paths(left, right)
        .into_iter()
        .flat_map(|path| files.clone().map(|operation| (operation, path.clone())))
        .chain(calls().map(|call| (Operation::Syscall, call.to_owned())))
        .chain([(Operation::Network, "anywhere".to_owned())]);
    let mut found: BTreeMap<(String, String), Difference> = BTreeMap::new();
    for (operation, target) in questions {
        let (said, other) = (
            decide(left, &operation, &target),
            decide(right, &operation, &target),
        );
        if said.verdict == other.verdict {
            continue;
        }
        let difference = found
            .entry((said.rule.clone(), other.rule.clone()))
            .or_insert_with(|| Difference {
                operations: Vec::new(),
                witness: target,
                count: 0,
                left: side(said),
                right: side(other),
            });
        difference.count += 1;
        let name = operation.to_string();
        if !difference.operations.contains(&name) {
            difference.operations.push(name);
        }
    }
    found.into_values().collect()
}

/// The paths of both, and one below each; between them rules draw no boundary.
fn paths(left: &Policy, right: &Policy) -> BTreeSet<String> {
    let rules = left.paths.iter().chain(&right.paths);
    let mut paths: BTreeSet<String> = rules
        .flat_map(|rule| [rule.path.to_string(), rule.path.join("~").to_string()])
        .collect();
    paths.insert("/~".to_owned());
    paths
}

fn calls() -> impl Iterator<Item = &'static str> {
    // One call of each group: a group is denied as a whole.
    SyscallGroup::ALL
        .into_iter()
        .filter_map(|group| group.names().first().copied())
}

fn side(ruling: Ruling) -> Side {
    Side {
        verdict: ruling.verdict,
        rule: ruling.rule,
        at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[(&str, &str)], network: &str) -> Policy {
        let rules: String = rules
            .iter()
            .map(|(path, access)| format!("[[path]]\npath = {path:?}\naccess = {access:?}\nwhy = \"\"\n"))
            .collect();
        Policy::parse(&format!(
            "version = 1\nposture = \"strict\"\nview = \"listed\"\nnetwork = {network:?}\ndeny-syscalls = [\"trace\"]\n{rules}"
        ))
        .unwrap()
    }

    #[test]
    fn a_wider_grant_is_found_with_a_path_and_both_rules() {
        let left = policy(&[("/usr", "read")], "none");
        let right = policy(&[("/usr", "read"), ("/usr/local", "write")], "host");
        let found = diff(&left, &right);
        let said: Vec<String> = found
            .iter()
            .map(|d| {
                format!(
                    "{} {} / {}: {}",
                    d.operations.join(","),
                    d.left.rule,
                    d.right.rule,
                    d.witness
                )
            })
            .collect();
        assert_eq!(
            said,
            [
                "network network = \"none\" / network = \"host\": anywhere",
                "file-write path /usr: read / path /usr/local: write: /usr/local"
            ]
        );
    }

    #[test]
    fn a_rule_that_repeats_another_is_no_difference() {
        let left = policy(&[("/usr", "read")], "none");
        let right = policy(&[("/usr/bin", "read"), ("/usr", "read")], "none");
        assert_eq!(diff(&left, &right), []);
    }
}
