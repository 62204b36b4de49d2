//! The rows of the key table.

use super::{Key, Kind};

const ABSOLUTE: Kind = Kind::Text("absolute path");
const PATHS: Kind = Kind::List("absolute paths");
const POSTURE: Kind = Kind::Choice(&["strict", "standard"]);
const HOMEBREW: Kind = Kind::Choice(&["own", "shared-read-only", "none"]);
const PORTS: Kind = Kind::Numbers { min: 1, max: 65535 };
const MANIFEST: Kind = Kind::Text("manifest's name or absolute path");
const TEXT: Kind = Kind::Text("text");

const fn from(min: u32) -> Kind {
    Kind::Number { min, max: u32::MAX }
}

/// Every key, in the order of the documentation.
pub const KEYS: [Key; 71] = [
    Key {
        name: "host.data_dir",
        kind: ABSOLUTE,
        default: Some("\"/var/lib/ephemerd\""),
        doc: "Folder of the ledger, the logs, the control socket and the workspaces.",
    },
    Key {
        name: "host.account",
        kind: Kind::Text("account name"),
        default: Some("\"_ephemerd\""),
        doc: "Service account and group; the account of slot N is this name followed by N.",
    },
    Key {
        name: "host.manifest",
        kind: MANIFEST,
        default: None,
        doc: "What this host must have; `linux-base` or `macos-base` when not set, and `none` asks for nothing.",
    },
    Key {
        name: "host.recheck",
        kind: Kind::Duration,
        default: Some("\"24h\""),
        doc: "How old a check may be that says this host has it.",
    },
    Key {
        name: "native.slots",
        kind: Kind::Number { min: 1, max: 64 },
        default: Some("4"),
        doc: "Jobs that run on this host at once.",
    },
    Key {
        name: "native.accounts",
        kind: Kind::Choice(&["per-slot", "single"]),
        default: Some("\"per-slot\""),
        doc: "An account per slot, or `host.account` for all of them.",
    },
    Key {
        name: "native.posture",
        kind: POSTURE,
        default: Some("\"strict\""),
        doc: "Profile of a job: `strict` denies what is not listed, `standard` allows what is not denied.",
    },
    Key {
        name: "native.job_timeout",
        kind: Kind::Duration,
        default: Some("\"2h\""),
        doc: "Longest time a job may run.",
    },
    Key {
        name: "native.stop_grace",
        kind: Kind::Duration,
        default: Some("\"10s\""),
        doc: "Time between asking a job to stop and killing it.",
    },
    Key {
        name: "native.allow_degraded",
        kind: Kind::List("axes"),
        default: Some("[]"),
        doc: "Axes that may be less than enforced without the job being refused.",
    },
    Key {
        name: "native.extra_read",
        kind: PATHS,
        default: Some("[]"),
        doc: "Paths that every job may read.",
    },
    Key {
        name: "native.extra_write",
        kind: PATHS,
        default: Some("[]"),
        doc: "Paths that every job may read and write.",
    },
    Key {
        name: "native.homebrew",
        kind: HOMEBREW,
        default: Some("\"own\""),
        doc: "The host's Homebrew as jobs get it: a prefix of their own, the host's to read, or none.",
    },
    Key {
        name: "native.homebrew_prefix",
        kind: ABSOLUTE,
        default: None,
        doc: "The host's Homebrew prefix; looked for where it usually is when not set.",
    },
    Key {
        name: "native.homebrew_layout",
        kind: Kind::Choice(&["links", "clone"]),
        default: Some("\"links\""),
        doc: "What a job's own prefix is made of: links to the host's files, or copy-on-write clones of them.",
    },
    Key {
        name: "native.first_port",
        kind: Kind::Number {
            min: 1024,
            max: 65_535,
        },
        default: Some("21000"),
        doc: "First port of slot 1.",
    },
    Key {
        name: "native.ports_per_slot",
        kind: Kind::Number { min: 1, max: 64_512 },
        default: Some("100"),
        doc: "Ports of each slot; the ranges follow each other.",
    },
    Key {
        name: "native.limits.processes",
        kind: from(1),
        default: Some("2048"),
        doc: "Processes and threads of a job.",
    },
    Key {
        name: "native.limits.memory",
        kind: Kind::Size,
        default: Some("\"8GiB\""),
        doc: "Memory of all processes of a job together.",
    },
    Key {
        name: "native.limits.disk",
        kind: Kind::Size,
        default: Some("\"30GiB\""),
        doc: "Disk of a job's workspace, and its largest single file.",
    },
    Key {
        name: "native.limits.open_files",
        kind: from(1),
        default: Some("65536"),
        doc: "Open files of each process.",
    },
    Key {
        name: "native.limits.output",
        kind: Kind::Size,
        default: Some("\"100MiB\""),
        doc: "Output of a job that is kept in its log.",
    },
    Key {
        name: "native.env.NAME",
        kind: TEXT,
        default: None,
        doc: "Variable added to the minimal environment of every job.",
    },
    Key {
        name: "trust.default",
        kind: Kind::Choice(&["vm", "refuse"]),
        default: Some("\"vm\""),
        doc: "Route of a job that no rule sends elsewhere.",
    },
    Key {
        name: "trust.repos.PATTERN",
        kind: Kind::Rule,
        default: None,
        doc: "Rule for `OWNER/NAME`, or `OWNER/*` for all of an owner's repositories.",
    },
    Key {
        name: "trust.repos.PATTERN.route",
        kind: Kind::Choice(&["native", "vm", "refuse"]),
        default: None,
        doc: "Where the jobs run; the one key a rule must have.",
    },
    Key {
        name: "trust.repos.PATTERN.events",
        kind: Kind::List("events"),
        default: None,
        doc: "Events that may be native; all that ever may when not set.",
    },
    Key {
        name: "trust.repos.PATTERN.pull_requests",
        kind: Kind::Choice(&["same-repo", "none"]),
        default: Some("\"same-repo\""),
        doc: "Pull requests that may be native.",
    },
    Key {
        name: "trust.repos.PATTERN.require_label",
        kind: Kind::Text("label"),
        default: None,
        doc: "Label a pull request must carry to be native.",
    },
    Key {
        name: "trust.repos.PATTERN.allow_bots",
        kind: Kind::Flag,
        default: Some("false"),
        doc: "Whether jobs of an actor ending in `[bot]` may be native.",
    },
    Key {
        name: "trust.repos.PATTERN.branches",
        kind: Kind::List("branch patterns"),
        default: None,
        doc: "Pushed or base branches that may be native; every branch when not set.",
    },
    Key {
        name: "repos.REPO",
        kind: Kind::Table,
        default: None,
        doc: "What the repository `OWNER/NAME` needs beyond `[native]`.",
    },
    Key {
        name: "repos.REPO.manifest",
        kind: MANIFEST,
        default: None,
        doc: "What this host must have besides, for the repository's jobs to run on it.",
    },
    Key {
        name: "repos.REPO.posture",
        kind: POSTURE,
        default: None,
        doc: "Takes the place of `native.posture`.",
    },
    Key {
        name: "repos.REPO.job_timeout",
        kind: Kind::Duration,
        default: None,
        doc: "Takes the place of `native.job_timeout`.",
    },
    Key {
        name: "repos.REPO.extra_read",
        kind: PATHS,
        default: Some("[]"),
        doc: "Paths its jobs may read besides `native.extra_read`.",
    },
    Key {
        name: "repos.REPO.extra_write",
        kind: PATHS,
        default: Some("[]"),
        doc: "Paths its jobs may read and write besides `native.extra_write`.",
    },
    Key {
        name: "repos.REPO.homebrew",
        kind: HOMEBREW,
        default: None,
        doc: "Takes the place of `native.homebrew`.",
    },
    Key {
        name: "repos.REPO.env.NAME",
        kind: TEXT,
        default: None,
        doc: "Variable added after, and in place of, `native.env`.",
    },
    Key {
        name: "egress.mode",
        kind: Kind::Choice(&["block-lan", "offline", "open"]),
        default: Some("\"block-lan\""),
        doc: "What a job reaches: the internet and not the LAN, its own loopback alone, or whatever the host reaches.",
    },
    Key {
        name: "egress.allow",
        kind: Kind::List("destinations"),
        default: Some("[]"),
        doc: "What a job reaches of the LAN or the host all the same; more than one address needs ` force` after it.",
    },
    Key {
        name: "egress.deny",
        kind: Kind::List("destinations"),
        default: Some("[]"),
        doc: "What a job does not reach of the internet; `egress.allow` does not lift it.",
    },
    Key {
        name: "egress.dns",
        kind: Kind::WordOrList {
            word: "system",
            of: "addresses",
        },
        default: Some("\"system\""),
        doc: "The resolvers that jobs may ask: those in `/etc/resolv.conf`, or these.",
    },
    Key {
        name: "egress.dns_ports",
        kind: PORTS,
        default: Some("[53]"),
        doc: "Ports on which a job reaches resolvers and nothing else; `[53, 853]` includes DNS over TLS.",
    },
    Key {
        name: "egress.protect_local_ports",
        kind: PORTS,
        default: Some("[22, 88, 445, 548, 3283, 5900]"),
        doc: "Ports of the host's loopback that no job reaches: remote login, sign-on, file and screen sharing.",
    },
    Key {
        name: "egress.loopback",
        kind: Kind::Choice(&["shared", "own-ports"]),
        default: Some("\"shared\""),
        doc: "Whether a job reaches the port ranges of other slots at the host's loopback.",
    },
    Key {
        name: "egress.log",
        kind: Kind::Flag,
        default: Some("false"),
        doc: "Whether the kernel logs what it blocks.",
    },
    Key {
        name: "egress.on_loss",
        kind: Kind::Choice(&["stop", "alert"]),
        default: Some("\"stop\""),
        doc: "Whether jobs are killed or go on when the packet filter is lost and cannot be loaded again.",
    },
    Key {
        name: "github.api",
        kind: Kind::Text("URL"),
        default: Some("\"https://api.github.com\""),
        doc: "Where GitHub's API is; `https://HOST/api/v3` for GitHub Enterprise Server.",
    },
    Key {
        name: "github.repos",
        kind: Kind::List("repositories"),
        default: Some("[]"),
        doc: "Repositories whose jobs run here, each with runners of its own.",
    },
    Key {
        name: "github.org",
        kind: Kind::Text("organisation"),
        default: None,
        doc: "Organisation whose runners these are; with an App and without `github.repos`, for every repository that GitHub lets us see. All of them must have the same sandbox.",
    },
    Key {
        name: "github.runner_group",
        kind: Kind::Text("runner group"),
        default: Some("\"Default\""),
        doc: "Runner group of the organisation that runners are put in.",
    },
    Key {
        name: "github.labels",
        kind: Kind::List("labels"),
        default: Some("[]"),
        doc: "Labels of our runners: a job runs here when it asks for no others.",
    },
    Key {
        name: "github.app_id",
        kind: from(1),
        default: None,
        doc: "The GitHub App that we are, with the two keys below.",
    },
    Key {
        name: "github.installation_id",
        kind: from(1),
        default: None,
        doc: "Its installation in the organisation or account.",
    },
    Key {
        name: "github.private_key",
        kind: ABSOLUTE,
        default: None,
        doc: "File of its private key, which only root may read.",
    },
    Key {
        name: "github.token_file",
        kind: ABSOLUTE,
        default: None,
        doc: "File of a fine-grained personal access token, in place of an App; only root may read it.",
    },
    Key {
        name: "github.acquire",
        kind: Kind::Choice(&["poll", "scale-set"]),
        default: Some("\"poll\""),
        doc: "How jobs are got: GitHub is asked for them, or offers them to a runner scale set.",
    },
    Key {
        name: "github.poll",
        kind: Kind::Duration,
        default: Some("\"10s\""),
        doc: "How often GitHub is asked for jobs while some wait or run.",
    },
    Key {
        name: "github.idle_poll",
        kind: Kind::Duration,
        default: Some("\"30s\""),
        doc: "How often it is asked while none do.",
    },
    Key {
        name: "github.idle_timeout",
        kind: Kind::Duration,
        default: Some("\"5m\""),
        doc: "How long a runner may wait for a job that another one took.",
    },
    Key {
        name: "github.stop_grace",
        kind: Kind::Duration,
        default: Some("\"30s\""),
        doc: "Time between asking a runner to stop and killing it; it reports to GitHub meanwhile.",
    },
    Key {
        name: "github.runner_version",
        kind: Kind::Text("version"),
        default: None,
        doc: "Version of the runner; the latest release when not set.",
    },
    Key {
        name: "github.runner_sha256",
        kind: Kind::Text("SHA-256"),
        default: None,
        doc: "Hash of its archive, as the notes of the release print it.",
    },
    Key {
        name: "github.runner_releases",
        kind: Kind::Text("URL"),
        default: Some("\"https://github.com/actions/runner/releases/download\""),
        doc: "Where archives of the runner are; below it they are called as GitHub calls them.",
    },
    Key {
        name: "github.webhook_listen",
        kind: Kind::Text("address and port"),
        default: None,
        doc: "Where webhooks of GitHub are taken, which make the daemon look at once; with the key below.",
    },
    Key {
        name: "github.webhook_secret",
        kind: ABSOLUTE,
        default: None,
        doc: "File of the webhook's secret, which only root may read.",
    },
    Key {
        name: "control.socket",
        kind: Kind::Text("path"),
        default: Some("\"run/ephemerd.sock\""),
        doc: "Control socket; a relative path is below `host.data_dir`.",
    },
    Key {
        name: "control.admin_group",
        kind: Kind::Text("group name"),
        default: Some("\"_ephemerd-admin\""),
        doc: "Group whose members may use the control socket; only root while there is no such group.",
    },
    Key {
        name: "log.format",
        kind: Kind::Choice(&["text", "json"]),
        default: Some("\"text\""),
        doc: "Lines of the daemon's log, for people or one JSON object each.",
    },
    Key {
        name: "log.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        default: Some("\"info\""),
        doc: "Least severe level that is logged.",
    },
];
