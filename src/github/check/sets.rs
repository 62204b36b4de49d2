//! Whether runner scale sets can be consumed. It makes neither a set nor a session; the registration token that is asked for
//! ends by itself within an hour, and a registration as a consumer leaves nothing at GitHub.

use super::{Finding, Level, finding};
use crate::config::GitHub;
use crate::github::client::{Client, ClientError, Tenant};
use crate::github::ticket::Scope;

/// Goes through the chain of tokens of each scope, and looks for the group.
pub(super) async fn check(client: &Client, github: &GitHub, scopes: &[Scope]) -> Vec<Finding> {
    let tenants = match client.tenants(scopes.iter().cloned()) {
        Ok(tenants) => tenants,
        Err(error) => return vec![Finding::unanswered("scale sets", &error)],
    };
    let mut found = Vec::new();
    for (scope, tenant) in scopes.iter().zip(tenants) {
        let what = format!("scale set of {scope}");
        match tenant.enter().await {
            Err(error) => found.push(Finding::unanswered(what, &error)),
            Ok(()) => found.push(group(what, scope, github, wanted(&tenant, scope, github).await)),
        }
    }
    found
}

/// The number of the group, where the service must be asked for it.
async fn wanted(tenant: &Tenant, scope: &Scope, github: &GitHub) -> Result<Option<u64>, ClientError> {
    match scope {
        Scope::Repo(_) => Ok(None),
        Scope::Org(_) => tenant.runner_group(&github.runner_group).await,
    }
}

/// What follows from the group that was found once we were let in.
fn group(what: String, scope: &Scope, github: &GitHub, found: Result<Option<u64>, ClientError>) -> Finding {
    match (scope, found) {
        (_, Err(error)) => Finding::unanswered(what, &error),
        (Scope::Org(_), Ok(None)) => {
            let name = github.runner_group.escape_debug();
            finding(
                Level::Fail,
                what,
                format!("it would be in runner group `{name}`, and there is none"),
            )
            .hint("set `github.runner_group`")
        }
        (Scope::Repo(_), Ok(_)) | (Scope::Org(_), Ok(Some(_))) => finding(
            Level::Ok,
            what,
            "GitHub lets us in; a registration token was asked for, which ends by itself, and nothing was made",
        ),
    }
}
