//! GitHub: jobs of GitHub Actions that run here, each on a runner of its own.
//!
//! The nouns:
//!
//! - A **runner** is what GitHub hands a job to: a name, an id and labels. Ours are *just in time*: made for one job at
//!   most, and gone at GitHub when that has ended.
//! - The **JIT configuration** is what GitHub answers when a runner is made: the settings and the credentials of that one
//!   runner, packed. We unpack it, and write its files where the runner reads them.
//! - The **runner tree** is GitHub's own program, `actions/runner`, in one version. It is fetched once per version and
//!   copied for every job.
//! - The **listener** is the program in the tree that asks GitHub for a job and runs it. What it prints says how far it
//!   is, and is never believed; how it ended is its exit code.
//!
//! ```text
//!  latest release ─► version ─► tree ─────────────► copy in the job's workspace
//!  JIT configuration ─────────► jit ──────────────►   + three files, 0600
//!                                                     │
//!                               listener ─► argv, environment ─► sandbox ─┬─► output ─► state, for people
//!                               listener ◄─ exit code ────────────────────┘
//!                                  └─► what follows: finished, again, upgrade, failed
//! ```
//!
//! A **run** and its **jobs** are what GitHub's API tells of a workflow: [`run`] makes of it what trust looks at. [`limits`]
//! says when GitHub may be asked again. The [`client`] asks, and nothing else here talks to anybody; [`api`] lists the
//! questions.
//!
//! Nothing in here touches the system. Trees are installed and copied by [`crate::host::runner`].

pub mod admission;
pub mod api;
pub mod check;
pub mod claim;
pub mod client;
pub mod demand;
pub mod limits;
pub mod run;
pub mod runner;
pub mod scale_set;
pub mod secret;
pub mod seen;
pub mod ticket;
pub mod webhook;
