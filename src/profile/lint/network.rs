//! Lints of connections.

use super::super::sbpl::Target;
use super::super::sbpl::decide::Verdict;
use super::super::sbpl::filter::{Filter, Test};
use super::super::sbpl::vocabulary::Shape;
use super::codes::{LOCAL_OUTBOUND, SOCKET_AS_FILE};
use super::{Finding, Profile, about, alternatives, names, plain_paths};

pub(super) fn lint(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    for (_, rule) in profile.rules() {
        if names(profile, rule, &["network-outbound", "network*"])
            && let Some(filter) = alternatives(&rule.filters)
                .into_iter()
                .find(|filter| is_near_only(filter))
        {
            let message =
                format!("`{filter}` matches every connection, because its near end is not bound yet");
            let hint = "write the far end, (remote …); what is bound or accepted is network-bind and network-inbound";
            findings.push(about(rule, LOCAL_OUTBOUND, message, hint));
        }
        if rule.verdict == Verdict::Deny
            && names(
                profile,
                rule,
                &[
                    "file*",
                    "file-read*",
                    "file-write*",
                    "file-read-data",
                    "file-write-data",
                ],
            )
        {
            let open = plain_paths(rule).find(|pattern| {
                let is_socket = pattern.shape == Shape::Literal
                    && [".sock", ".socket"].iter().any(|end| pattern.text.ends_with(end));
                is_socket
                    && profile.asked("network-outbound", &Target::unix_socket(&pattern.text))
                        == Verdict::Allow
            });
            findings.extend(open.map(|pattern| {
                about(
                    rule,
                    SOCKET_AS_FILE,
                    format!(
                        "`{}` can still be connected to: that asks network-outbound and not for the file",
                        pattern.text
                    ),
                    "name network-outbound in this rule as well",
                )
            }));
        }
    }
}

/// Whether a filter asks about the near end of a connection and not about the far one.
fn is_near_only(filter: &Filter) -> bool {
    match filter {
        Filter::Test(Test::Endpoint { local, .. }) => *local,
        Filter::All(all) => {
            all.iter().any(is_near_only)
                && !all.iter().flat_map(Filter::tests).any(|test| {
                    matches!(
                        test,
                        Test::Endpoint { local: false, .. } | Test::UnixSocket { .. } | Test::Path(_)
                    )
                })
        }
        Filter::Any(_) | Filter::Not(_) | Filter::Test(_) => false,
    }
}
