//! Names of repositories and branches as rules write them.
//!
//! A repository pattern is one repository or one owner's every repository; nothing in between, so that a
//! reader sees at once whom a rule trusts. Branch patterns follow GitHub's filter patterns: `*` stays within
//! a path segment, `**` does not.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::job::Repo;

/// The repositories a rule is about. Compared as [`Repo`] is, without regard to ASCII case.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// This repository.
    Exact(Repo),
    /// Every repository of this owner, written `owner/*`.
    Owner(String),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Owner(a), Self::Owner(b)) => a.eq_ignore_ascii_case(b),
            (Self::Exact(_), Self::Owner(_)) | (Self::Owner(_), Self::Exact(_)) => false,
        }
    }
}

impl Eq for Pattern {}

/// Why a piece of text is not a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no repository\nhint: write `OWNER/NAME`, or `OWNER/*` for all of an owner's repositories"
)]
pub struct PatternError(String);

impl Pattern {
    /// Whether the pattern covers `repo`.
    pub fn covers(&self, repo: &Repo) -> bool {
        match self {
            Self::Exact(exact) => exact == repo,
            Self::Owner(owner) => owner.eq_ignore_ascii_case(repo.owner()),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let bad = || PatternError(text.to_owned());
        match text.strip_suffix("/*") {
            // An owner is valid when a repository of that owner could exist.
            Some(owner) => format!("{owner}/x")
                .parse::<Repo>()
                .map(|_| Self::Owner(owner.to_owned()))
                .map_err(|_| bad()),
            None => text.parse().map(Self::Exact).map_err(|_| bad()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(repo) => write!(f, "{repo}"),
            Self::Owner(owner) => write!(f, "{owner}/*"),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether `branch` matches `pattern`, in which `*` stands for any characters but `/` and `**` for any
/// characters. Case counts, as it does in git.
///
/// Takes time proportional to the product of both lengths: the branch's name is a stranger's choice.
pub fn branch_matches(pattern: &str, branch: &str) -> bool {
    let branch: Vec<char> = branch.chars().collect();
    // reached[i]: what is read of the pattern so far can match the first i characters of the branch.
    let mut reached = vec![false; branch.len() + 1];
    reached[0] = true;
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**") {
            spread(&mut reached, &branch, |_| true);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('*') {
            spread(&mut reached, &branch, |c| c != '/');
            rest = after;
        } else {
            for i in (0..branch.len()).rev() {
                reached[i + 1] = reached[i] && branch[i] == first;
            }
            reached[0] = false;
            rest = &rest[first.len_utf8()..];
        }
    }
    reached[branch.len()]
}

/// Extends every reached place over the characters that `may_skip` accepts.
fn spread(reached: &mut [bool], branch: &[char], may_skip: impl Fn(char) -> bool) {
    for (i, c) in branch.iter().enumerate() {
        if reached[i] && may_skip(*c) {
            reached[i + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn covers_names_without_case_and_nothing_beyond() {
        let cases = [
            ("acme/ios", "ACME/iOS", true),
            ("acme/ios", "acme/ios2", false),
            ("acme/*", "Acme/anything", true),
            ("acme/*", "acme2/ios", false),
            ("acme/*", "acm/ios", false),
        ];
        for (pattern, repo, expected) in cases {
            let covered = pattern.parse::<Pattern>().unwrap().covers(&repo.parse().unwrap());
            assert_eq!(covered, expected, "{pattern} {repo}");
        }
    }

    #[test]
    fn refuses_patterns_wider_than_one_owner() {
        for bad in [
            "*",
            "*/*",
            "*/ios",
            "acme/i*",
            "acme/**",
            "acme",
            "/*",
            "a/b/*",
            "",
            "acme/ios/*",
        ] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_that_differ_in_case_are_equal() {
        let pairs = [("Acme/*", "acme/*"), ("Acme/iOS", "acme/ios")];
        for (a, b) in pairs {
            assert_eq!(a.parse::<Pattern>().unwrap(), b.parse::<Pattern>().unwrap());
        }
    }

    #[test]
    fn branch_patterns_follow_github() {
        let cases = [
            ("main", "main", true),
            ("main", "Main", false),
            ("main", "main2", false),
            ("", "", true),
            ("release/*", "release/1.0", true),
            ("release/*", "release/", true),
            ("release/*", "release/1.0/hotfix", false),
            ("release/**", "release/1.0/hotfix", true),
            ("*", "main", true),
            ("*", "feature/x", false),
            ("**", "feature/x", true),
            ("v*.*", "v1.2", true),
            ("v*.*", "v12", false),
            ("*-ci-*", "a-ci-b", true),
            ("[ab]", "a", false),
        ];
        for (pattern, branch, expected) in cases {
            assert_eq!(branch_matches(pattern, branch), expected, "{pattern} {branch}");
        }
    }

    proptest! {
        #[test]
        fn a_branch_without_stars_matches_itself_alone(a in "[a-z/é]{0,12}", b in "[a-z/é]{0,12}") {
            prop_assert!(branch_matches(&a, &a));
            prop_assert_eq!(branch_matches(&a, &b), a == b);
        }

        #[test]
        fn a_star_matches_what_a_slash_free_middle_fills(a in "[a-z/]{0,6}", middle in "[a-z]{0,6}", b in "[a-z/]{0,6}") {
            let pattern = format!("{a}*{b}");
            let branch = format!("{a}{middle}{b}");
            prop_assert!(branch_matches(&pattern, &branch));
        }
    }
}
