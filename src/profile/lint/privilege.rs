//! Lints of allows that reach further than they look.

use super::super::sbpl::decide::{Decider, Verdict};
use super::super::sbpl::filter::{Filter, Test};
use super::super::sbpl::vocabulary::Shape;
use super::super::sbpl::{Rule, Semantics, Target};
use super::codes::{KERNEL_NAMES, NO_SANDBOX, PROCESS_INFO, SYSCTL_WRITE, UNFILTERED_ALLOW};
use super::{FRESH, Finding, Profile, about, alternatives, names};

/// Operations that are hardly ever meant for every target: what an allow without a filter gives, and what to
/// write.
const WIDE: [(&str, &str, &str); 7] = [
    (
        "sysctl-read",
        "the arguments and the environment of every process of the account, by kern.procargs2",
        "list what is needed, as (sysctl-name-prefix \"hw.\") (sysctl-name \"kern.ostype\")",
    ),
    (
        "signal",
        "signals to every process of the account",
        "write (allow signal (target self) (target children) (target same-sandbox))",
    ),
    (
        "mach-lookup",
        "every service of the system and of the user, also those that start programs outside of the sandbox",
        "list the services, as (global-name \"com.apple.trustd\")",
    ),
    (
        "process-info*",
        "the arguments, the environment and the open files of every process of the account",
        "write (allow process-info* (target self))",
    ),
    (
        "process-info-pidinfo",
        "a look into every process of the account",
        "write (allow process-info-pidinfo (target self))",
    ),
    (
        "process-info-pidfdinfo",
        "the open files of every process of the account",
        "write (allow process-info-pidfdinfo (target self))",
    ),
    (
        "file-read-metadata",
        "whether any file exists, how large it is and when it was changed",
        "list the folders, and (path-ancestors …) for those above them",
    ),
];

pub(super) fn lint(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    if profile.denies_by_default().is_some() {
        unfiltered(profile, findings);
        kernel_names(profile, findings);
    }
    for rule in profile.allows() {
        if rule
            .modifiers
            .iter()
            .any(|modifier| modifier.name == "no-sandbox")
        {
            findings.push(about(
                rule,
                NO_SANDBOX,
                "what this allows to be executed runs without any sandbox, and so does what it starts"
                    .to_owned(),
                "leave the modifier out, or have the program run outside and pass on its answer",
            ));
        }
        findings.extend(process_info(profile, rule));
        findings.extend(sysctl_write(profile, rule));
    }
}

fn unfiltered(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    for (operation, gives, hint) in WIDE {
        let Some(id) = profile.operation(operation) else {
            continue;
        };
        // The last one without a filter is the one that counts.
        let rules = profile.rules().filter(|(_, rule)| rule.filters.is_empty());
        let last = rules
            .filter(|(_, rule)| rule.operations.iter().any(|(named, _)| *named == id))
            .last();
        if let Some((_, rule)) = last.filter(|(_, rule)| rule.verdict == Verdict::Allow) {
            let message = format!("`{operation}` is allowed without a filter: {gives}");
            findings.push(about(rule, UNFILTERED_ALLOW, message, hint));
        }
    }
}

/// Names by prefix or expression that cover what gives the arguments of processes.
fn kernel_names(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    let Some(id) = profile.operation("sysctl-read") else {
        return;
    };
    // Whether the kernel looks at the name is disputed; what the rule says is not.
    let by_name = Semantics {
        procargs_has_name: true,
        ..*profile.semantics
    };
    let target = Target::named("sysctl-name", "kern.procargs2");
    if let (Verdict::Allow, Decider::Rule(index)) = profile.ruleset.verdict(id, &target, &by_name)
        && let rule = &profile.ruleset.rules[index]
        && !rule.filters.is_empty()
    {
        findings.push(about(
            rule,
            KERNEL_NAMES,
            "this covers kern.procargs2, which gives the arguments and the environment of processes"
                .to_owned(),
            "list the names of the kernel that are needed, each with (sysctl-name …)",
        ));
    }
}

fn process_info(profile: &Profile<'_>, rule: &Rule) -> Option<Finding> {
    if !names(
        profile,
        rule,
        &["process-info*", "process-info-pidinfo", "process-info-pidfdinfo"],
    ) {
        return None;
    }
    let relation = alternatives(&rule.filters)
        .into_iter()
        .find_map(|filter| match filter {
            Filter::Test(Test::Number {
                filter: "target",
                values,
            }) => {
                let mut names = values.iter().map(|(_, name)| name.as_str());
                names.find(|name| ["same-sandbox", "others"].contains(name))
            }
            _ => None,
        })?;
    Some(about(
        rule,
        PROCESS_INFO,
        format!("`{relation}` lets a process read the arguments and the environment of others"),
        "write (target self)",
    ))
}

/// An allow of `sysctl-write` that is why the same names can be read.
fn sysctl_write(profile: &Profile<'_>, rule: &Rule) -> Option<Finding> {
    rule.operations
        .iter()
        .find(|(_, name)| &**name == "sysctl-write")?;
    let id = profile.operation("sysctl-read")?;
    let targets: Vec<Target> = match rule.filters.as_slice() {
        [] => vec![Target::named("sysctl-name", FRESH)],
        filters => alternatives(filters)
            .into_iter()
            .filter_map(|filter| match filter {
                Filter::Test(Test::Text { filter, pattern }) if pattern.shape != Shape::Regex => {
                    Some(Target::named(filter, &pattern.text))
                }
                _ => None,
            })
            .collect(),
    };
    let opens = targets.iter().any(|target| match profile.verdict(id, target) {
        (Verdict::Allow, Decider::Rule(index)) => std::ptr::eq(&raw const profile.ruleset.rules[index], rule),
        _ => false,
    });
    opens.then(|| {
        about(
            rule,
            SYSCTL_WRITE,
            "in a profile `sysctl-write` is another name of `sysctl*`: this allows reading as well"
                .to_owned(),
            "write `sysctl*` if both are meant, and decide about sysctl-read in a rule of its own if not",
        )
    })
}
