//! Workflows and composite actions: their jobs and steps in order, and what each of them presumes where it runs.

use std::collections::BTreeSet;

use super::environment::{of_path, of_program, of_variable};
use super::matrix::expand;
use super::shell::{self, EXPRESSION, Word};
use super::target::Target;
use super::yaml::Node;
use super::{Effect, Need, ScanError, What, actions, commands, is_base};

/// The most characters of a workflow that are quoted as the reason of a need.
const QUOTE_MAX: usize = 60;

/// What the file presumes, in the order of its lines.
pub(super) fn needs(file: &str, text: &str, root: &Node) -> Result<Vec<Need>, ScanError> {
    let mut reader = Reader {
        file,
        lines: text.lines().collect(),
        needs: Vec::new(),
    };
    match (root.get("jobs"), root.get("runs")) {
        (Some(jobs), _) => reader.workflow(root, jobs),
        (None, Some(runs)) => reader.action(runs),
        (None, None) => {
            return Err(ScanError::NotAWorkflow {
                file: file.to_owned(),
                line: root.line,
            });
        }
    }
    // What a substitution runs was met before the command it is part of.
    reader.needs.sort_by_key(|need| need.line);
    // Steps share the lines of defaults and of what aliases stand for.
    let mut seen = BTreeSet::new();
    reader
        .needs
        .retain(|need| seen.insert((need.line, need.what.clone())));
    Ok(reader.needs)
}

struct Reader<'a> {
    file: &'a str,
    /// All of the file's.
    lines: Vec<&'a str>,
    needs: Vec<Need>,
}

/// What the steps of a job share.
struct Job<'a> {
    target: Target,
    matrix: Option<&'a Node>,
    /// `defaults.run`, of the job before the workflow's.
    defaults: [Option<&'a Node>; 2],
    /// Commands that steps have fetched so far, and functions of the script that is being read.
    provided: BTreeSet<String>,
}

impl Job<'_> {
    /// The setting `key` of a step that runs a script.
    fn setting<'n>(&'n self, step: &'n Node, key: &str) -> Option<&'n Node> {
        let defaults = self.defaults.iter().flatten().copied();
        std::iter::once(step)
            .chain(defaults)
            .find_map(|node| node.get(key))
    }

    /// Every value that `node` can have with this matrix.
    fn expand(&self, node: &Node) -> Vec<String> {
        let texts = node.text().map(|text| vec![text.to_owned()]);
        texts
            .into_iter()
            .flat_map(|texts| expand(texts, self.matrix).concat())
            .collect()
    }
}

/// Where a need was found, and why.
struct Found<'a> {
    target: Target,
    line: usize,
    because: &'a str,
}

impl Reader<'_> {
    fn workflow(&mut self, root: &Node, jobs: &Node) {
        let mut everywhere = Job {
            target: Target::Any,
            matrix: None,
            defaults: [None, defaults(root)],
            provided: BTreeSet::new(),
        };
        self.environment(root, Target::Any, &mut everywhere);
        for (_, job) in jobs.entries() {
            self.job(job, defaults(root));
        }
    }

    fn action(&mut self, runs: &Node) {
        let mut job = Job {
            target: Target::Any,
            matrix: None,
            defaults: [None, None],
            provided: BTreeSet::new(),
        };
        match runs.get_text("using") {
            Some("docker") => {
                let image = runs.get("image").unwrap_or(runs);
                self.unavailable("docker action", image, "`using: docker`", &job);
            }
            // An action of Node.js brings nothing that the runner does not bring as well.
            Some(_) | None => self.steps(runs, &mut job),
        }
    }

    fn job(&mut self, node: &Node, workflow_defaults: Option<&Node>) {
        let matrix = node.get("strategy").and_then(|strategy| strategy.get("matrix"));
        let runners = node
            .get("runs-on")
            .map(|runs_on| (runs_on, runners(runs_on, matrix)));
        let mut job = Job {
            target: runners
                .as_ref()
                .map_or(Target::Any, |(_, runners)| Target::of_runners(runners)),
            matrix,
            defaults: [defaults(node), workflow_defaults],
            provided: BTreeSet::new(),
        };
        for (runs_on, labels) in runners
            .into_iter()
            .flat_map(|(node, all)| all.into_iter().map(move |one| (node, one)))
        {
            let found = Found {
                target: Target::of_runners(std::slice::from_ref(&labels)),
                line: runs_on.line,
                because: "`runs-on:`",
            };
            self.add(vec![What::RunsOn(labels)], &found, &job);
        }
        if job.target == Target::Windows {
            return;
        }
        for (name, service) in node
            .get("services")
            .iter()
            .flat_map(|services| services.entries())
        {
            let image = service.get_text("image").unwrap_or(name);
            self.unavailable(
                &format!("service {image}"),
                service,
                &format!("`services: {name}`"),
                &job,
            );
        }
        if let Some(container) = node.get("container") {
            let image = container
                .text()
                .or(container.get_text("image"))
                .unwrap_or_default();
            self.unavailable(&format!("container {image}"), container, "`container:`", &job);
            // What its steps presume is in the image.
            return;
        }
        let target = job.target;
        self.environment(node, target, &mut job);
        self.steps(node, &mut job);
    }

    /// Something at `node` that no job on a host can have.
    fn unavailable(&mut self, what: &str, node: &Node, because: &str, job: &Job) {
        let found = Found {
            target: job.target,
            line: node.line,
            because,
        };
        self.add(vec![What::Action(what.to_owned())], &found, job);
    }

    fn steps(&mut self, node: &Node, job: &mut Job) {
        for step in node.get("steps").map(Node::items).unwrap_or_default() {
            let condition = step.get_text("if").unwrap_or_default();
            let target = job.target.narrowed(condition);
            if target != Target::Windows {
                self.environment(step, target, job);
                self.uses(step, target, job);
                self.run(step, target, job);
            }
        }
    }

    /// The variables that `node` sets.
    fn environment(&mut self, node: &Node, target: Target, job: &mut Job) {
        let Some(env) = node.get("env") else { return };
        for (name, value) in env.entries() {
            let Some(text) = value.text() else { continue };
            let because = quote(&format!("{name}: {text}"));
            let found = Found {
                target,
                line: value.line,
                because: &because,
            };
            let text = shell::without_expressions(text);
            self.add(of_variable(name, &text), &found, job);
            // GitHub does not run it, but whoever wrote it meant the shell to.
            if text.contains("$(") {
                for command in shell::read(&format!("_=\"{text}\"")).commands {
                    self.take(commands::effect(&command), &found, job);
                }
            }
        }
    }

    fn uses(&mut self, step: &Node, target: Target, job: &mut Job) {
        let Some((node, uses)) = step.get("uses").and_then(|node| Some((node, node.text()?))) else {
            return;
        };
        let with = |key: &str| {
            let input = step.get("with").and_then(|with| with.get(key));
            input.map(|input| job.expand(input)).unwrap_or_default()
        };
        let effect = actions::effect(uses, with);
        let found = Found {
            target,
            line: node.line,
            because: &quote(&format!("uses: {uses}")),
        };
        self.take(effect, &found, job);
    }

    fn run(&mut self, step: &Node, target: Target, job: &mut Job) {
        let Some(script) = step.get("run").and_then(|run| run.script(&self.lines)) else {
            return;
        };
        if let Some(folder) = job.setting(step, "working-directory") {
            let path = folder.text().unwrap_or_default();
            let found = Found {
                target,
                line: folder.line,
                because: &quote(&format!("working-directory: {path}")),
            };
            self.add(of_path(path).into_iter().collect(), &found, job);
        }
        if let Some(node) = job.setting(step, "shell") {
            let template = node.text().unwrap_or_default();
            let program = template.split_whitespace().next().unwrap_or_default();
            let found = Found {
                target,
                line: node.line,
                because: &quote(&format!("shell: {template}")),
            };
            self.add(of_program(program).into_iter().collect(), &found, job);
            if !["bash", "dash", "sh", "zsh"].contains(&program) {
                return;
            }
        }
        let read = shell::read(&shell::without_expressions(&script.text));
        // A function is one until the end of its script, and may be called before the line that defines it.
        let functions: Vec<String> = read.functions.difference(&job.provided).cloned().collect();
        job.provided.extend(functions.iter().cloned());
        for command in &read.commands {
            let words = if command.words.is_empty() {
                &command.assignments
            } else {
                &command.words
            };
            let found = Found {
                target,
                line: script.line(command.line),
                because: &quote(&joined(words)),
            };
            self.take(commands::effect(command), &found, job);
        }
        for function in &functions {
            job.provided.remove(function);
        }
    }

    /// Notes what one command or action does.
    fn take(&mut self, effect: Effect, found: &Found, job: &mut Job) {
        let Effect { needs, provides } = effect;
        self.add(needs, found, job);
        job.provided.extend(provides);
    }

    /// Notes the needs among `whats` that the job does not provide itself, nor every host.
    fn add(&mut self, whats: Vec<What>, found: &Found, job: &Job) {
        for what in whats {
            let os = found.target.os().or(what.os());
            let is_there = match &what {
                What::Command(name) => job.provided.contains(name) || is_base(os, name),
                // It installs into the folder of the Node.js that the job has fetched.
                What::Npm(_) => job.provided.contains("npm"),
                _ => false,
            };
            if !is_there {
                self.needs.push(Need {
                    what,
                    file: self.file.to_owned(),
                    line: found.line,
                    because: found.because.to_owned(),
                    os,
                });
            }
        }
    }
}

fn defaults(node: &Node) -> Option<&Node> {
    node.get("defaults")?.get("run")
}

/// The labels of each runner that can run a job; none where they are known only when it runs.
fn runners(runs_on: &Node, matrix: Option<&Node>) -> Vec<Vec<String>> {
    let labels = runs_on.get("labels").unwrap_or(runs_on);
    let texts: Vec<String> = match labels.text() {
        Some(label) => vec![label.to_owned()],
        None => labels
            .items()
            .iter()
            .filter_map(|item| Some(item.text()?.to_owned()))
            .collect(),
    };
    let is_known =
        |labels: &Vec<String>| !labels.is_empty() && !labels.iter().any(|label| label.contains("${{"));
    expand(texts, matrix).into_iter().filter(is_known).collect()
}

fn joined(words: &[Word]) -> String {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    texts.join(" ")
}

/// A piece of a workflow, as a reason: in one line, and not too long for it.
fn quote(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ").replace(EXPRESSION, "${{ … }}");
    match line.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("`{}…`", &line[..end]),
        None => format!("`{line}`"),
    }
}
