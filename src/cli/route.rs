//! `ephemerd route`: where a job would run, and why, without running it.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::Format;
use super::origin::OriginArgs;
use crate::config::Config;
use crate::config::size::show_size;
use crate::job::Repo;
use crate::trust::{Decision, Route, decide};
use crate::vm::{Isolation, Wanted};

/// The job that is asked about.
#[derive(Debug, Clone, Args)]
pub struct RouteArgs {
    /// The repository whose workflow it is, OWNER/NAME
    pub repo: Repo,
    #[command(flatten)]
    origin: OriginArgs,
    /// How to answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Prints where the job would run. The exit code is 0 when it would run somewhere and 1 when it is refused.
///
/// # Errors
///
/// When standard output cannot be written.
pub fn run(args: &RouteArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let decision = decide(
        &config.trust,
        config.has_vm_backend(),
        &args.origin.origin(&args.repo),
    );
    let code = code(decision.route);
    let text = render(&answer(decision, config), args.format)?;
    writeln!(io::stdout(), "{text}").context("could not write the answer")?;
    Ok(ExitCode::from(code))
}

/// Where a job would run, and behind what.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    decision: Decision,
    /// How strong its fence would be, if it ran.
    isolation: Option<Isolation>,
    /// The backend of its guest, and the image; why there would be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<String>,
}

fn answer(decision: Decision, config: &Config) -> Told {
    let wanted = (decision.route == Route::Vm).then(|| Wanted::new(&config.vm, &decision.vm));
    let isolation = match (&wanted, decision.route) {
        (Some(wanted), _) => wanted.as_ref().ok().map(|wanted| wanted.isolation),
        (None, Route::Native) => Some(Isolation::Sandbox),
        (None, Route::Vm | Route::Refuse) => None,
    };
    let guest = wanted.map(|wanted| match wanted {
        Ok(Wanted {
            backend,
            image,
            cpu,
            memory_byte,
            disk_byte,
            ..
        }) => format!(
            "{backend}, image `{image}`, {cpu} processors, {} memory, {} disk",
            show_size(memory_byte),
            show_size(disk_byte)
        ),
        Err(why) => why,
    });
    Told {
        decision,
        isolation,
        guest,
    }
}

const fn code(route: Route) -> u8 {
    match route {
        Route::Native | Route::Vm => 0,
        Route::Refuse => 1,
    }
}

fn render(told: &Told, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Json => serde_json::to_string_pretty(told).context("could not write the decision as JSON"),
        Format::Text => {
            let Decision {
                route,
                reason,
                rule,
                chain,
                fallback: _,
                vm: _,
            } = &told.decision;
            let mut lines = vec![
                format!("route:  {}", route.as_str()),
                format!("reason: {reason}"),
                format!("rule:   {rule}"),
            ];
            lines.extend(
                told.isolation
                    .map(|isolation| format!("fence:  {}", isolation.as_str())),
            );
            lines.extend(told.guest.iter().map(|guest| format!("guest:  {guest}")));
            lines.push("considered:".to_owned());
            lines.extend(
                chain
                    .iter()
                    .enumerate()
                    .map(|(i, step)| format!("  {}. {step}", i + 1)),
            );
            Ok(lines.join("\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: RouteArgs,
    }

    const CONFIG: &str = "trust.repos.\"acme/*\" = { route = \"native\", branches = [\"main\"] }";

    fn answer(args: &[&str]) -> (u8, String) {
        let args = Cli::parse_from(["route"].iter().chain(args)).args;
        let config = crate::config::parse(CONFIG, "e.toml").unwrap().config;
        let decision = decide(
            &config.trust,
            config.has_vm_backend(),
            &args.origin.origin(&args.repo),
        );
        (
            code(decision.route),
            render(&super::answer(decision, &config), args.format).unwrap(),
        )
    }

    #[test]
    fn answers_with_route_reason_and_chain() {
        let (code, text) = answer(&["acme/ios", "--branch", "main"]);
        assert_eq!(code, 0);
        insta::assert_snapshot!(text, @r#"
        route:  native
        reason: trust.repos."acme/*" sends acme/ios to native
        rule:   trust.repos."acme/*"
        fence:  sandbox
        considered:
          1. no entry names acme/ios exactly
          2. trust.repos."acme/*" says native
          3. event `push` may be native
          4. the code comes from acme/ios itself
          5. branch `main` matches `main`
        "#);
    }

    #[test]
    fn a_pull_request_without_a_head_has_an_unknown_one() {
        let (code, text) = answer(&["acme/ios", "--event", "pull_request", "--branch", "main"]);
        assert_eq!(code, 1);
        insta::assert_snapshot!(text, @r#"
        route:  refuse
        reason: trust.repos."acme/*" allows native, but the repository the code comes from is unknown, which is never native; trust.default says vm, and no VM backend is configured
        rule:   trust.default
        considered:
          1. no entry names acme/ios exactly
          2. trust.repos."acme/*" says native
          3. event `pull_request` may be native
          4. not native: the repository the code comes from is unknown, which is never native
          5. trust.default says vm
          6. vm is not possible: no VM backend is configured
        "#);
        let own = [
            "acme/ios",
            "--event",
            "pull_request",
            "--branch",
            "main",
            "--head",
            "ACME/ios",
        ];
        assert_eq!(answer(&own).0, 0);
    }

    #[test]
    fn answers_in_json() {
        let (_, text) = answer(&[
            "zeta/x", "--format", "json", "--label", "a", "--label", "b", "--actor", "mona",
        ]);
        insta::assert_snapshot!(text, @r#"
        {
          "route": "refuse",
          "reason": "no entry of trust.repos names zeta/x; trust.default says vm, and no VM backend is configured",
          "rule": "trust.default",
          "chain": [
            "no entry names zeta/x exactly",
            "no entry names all of zeta",
            "trust.default says vm",
            "vm is not possible: no VM backend is configured"
          ],
          "isolation": null
        }
        "#);
    }
}
