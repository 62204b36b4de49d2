//! Which system a job or a step runs on, as far as its text tells.

use crate::host::Os;

/// The systems something runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Unknown, or more than one.
    Any,
    /// This one.
    Only(Os),
    /// One on which ephemerd has no hosts.
    Windows,
}

impl Target {
    /// The only system, if there is one.
    pub(super) fn os(self) -> Option<Os> {
        match self {
            Self::Only(os) => Some(os),
            Self::Any | Self::Windows => None,
        }
    }

    /// What a runner label, or the name that `runner.os` has, says of the system. Labels of GitHub's own images
    /// begin with it, and those of self-hosted runners are it.
    pub(super) fn of_label(label: &str) -> Self {
        let label = label.to_ascii_lowercase();
        let begins = |names: &[&str]| names.iter().any(|name| label.starts_with(name));
        if begins(&["macos", "mac-", "osx"]) {
            Self::Only(Os::MacOs)
        } else if begins(&["ubuntu", "linux", "debian", "fedora"]) {
            Self::Only(Os::Linux)
        } else if begins(&["windows"]) {
            Self::Windows
        } else {
            Self::Any
        }
    }

    /// Where a job runs that can have any of `alternatives`, each the labels of one runner.
    pub(super) fn of_runners(alternatives: &[Vec<String>]) -> Self {
        let of_one = |labels: &Vec<String>| {
            let mut told = labels.iter().map(|label| Self::of_label(label));
            told.find(|target| *target != Self::Any).unwrap_or(Self::Any)
        };
        // The part of a matrix that runs on Windows is nobody's here.
        let mut ours = alternatives
            .iter()
            .map(of_one)
            .filter(|target| *target != Self::Windows);
        match ours.next() {
            None if alternatives.is_empty() => Self::Any,
            None => Self::Windows,
            Some(first) if ours.all(|target| target == first) => first,
            Some(_) => Self::Any,
        }
    }

    /// Where a step of a job that runs here runs, given its `if:`.
    pub(super) fn narrowed(self, condition: &str) -> Self {
        // As a disjunction of conjunctions; a parenthesis that makes it something else tells nothing.
        let alternatives = condition.split("||");
        let mut told = alternatives.map(|alternative| {
            let mut pins = alternative.split("&&").map(pin);
            pins.find(|pin| *pin != Self::Any).unwrap_or(Self::Any)
        });
        let first = told.next().unwrap_or(Self::Any);
        if first != Self::Any && told.all(|target| target == first) {
            first
        } else {
            self
        }
    }
}

/// What a single comparison says: `runner.os == 'macOS'`, `startsWith(matrix.os, 'ubuntu')`.
fn pin(comparison: &str) -> Target {
    let about_runner = ["runner.os", "matrix.", "runner.name"];
    if !about_runner.iter().any(|name| comparison.contains(name)) {
        return Target::Any;
    }
    let Some(value) = comparison.split('\'').nth(1) else {
        return Target::Any;
    };
    let is_negated =
        comparison.contains("!=") || comparison.trim_start_matches("${{").trim().starts_with('!');
    match Target::of_label(value) {
        // Of the systems that ephemerd knows, the other one.
        Target::Only(Os::MacOs) if is_negated => Target::Only(Os::Linux),
        Target::Only(Os::Linux) if is_negated => Target::Only(Os::MacOs),
        Target::Windows if is_negated => Target::Any,
        target => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Target = Target::Only(Os::MacOs);
    const LINUX: Target = Target::Only(Os::Linux);

    #[test]
    fn labels_tell_the_system() {
        let cases = [
            (vec!["macos-14"], MAC),
            (vec!["ubuntu-latest"], LINUX),
            (vec!["self-hosted", "macOS", "ARM64"], MAC),
            (vec!["self-hosted"], Target::Any),
            (vec!["windows-2022"], Target::Windows),
        ];
        for (labels, expected) in cases {
            let labels: Vec<String> = labels.into_iter().map(str::to_owned).collect();
            assert_eq!(
                Target::of_runners(std::slice::from_ref(&labels)),
                expected,
                "{labels:?}"
            );
        }
    }

    #[test]
    fn a_matrix_tells_the_system_if_it_has_one_that_is_not_windows() {
        let runners = |labels: &[&str]| -> Vec<Vec<String>> {
            labels.iter().map(|label| vec![(*label).to_owned()]).collect()
        };
        assert_eq!(Target::of_runners(&runners(&["macos-14", "macos-15"])), MAC);
        assert_eq!(
            Target::of_runners(&runners(&["macos-14", "ubuntu-24.04"])),
            Target::Any
        );
        assert_eq!(
            Target::of_runners(&runners(&["windows-2022", "ubuntu-24.04"])),
            LINUX
        );
        assert_eq!(Target::of_runners(&[]), Target::Any);
    }

    #[test]
    fn conditions_pin_the_system() {
        let cases = [
            ("runner.os == 'macOS'", MAC),
            ("${{ runner.os == 'Linux' && matrix.extra }}", LINUX),
            ("startsWith(matrix.os, 'ubuntu')", LINUX),
            (
                "matrix.platform == 'macos-14' || matrix.platform == 'macos-15'",
                MAC,
            ),
            ("runner.os != 'macOS'", LINUX),
            ("${{ !startsWith(matrix.os, 'ubuntu') }}", MAC),
            ("runner.os == 'Windows'", Target::Windows),
            ("runner.os != 'Windows'", Target::Any),
            (
                "runner.os == 'macOS' || github.ref == 'refs/heads/main'",
                Target::Any,
            ),
            ("github.event_name == 'macos'", Target::Any),
            ("always()", Target::Any),
        ];
        for (condition, expected) in cases {
            assert_eq!(Target::Any.narrowed(condition), expected, "{condition}");
        }
        assert_eq!(MAC.narrowed("always()"), MAC);
    }
}
