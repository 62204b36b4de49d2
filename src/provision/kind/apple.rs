//! Apple's developer tools and Rosetta.
//!
//! Nothing of this was run on a Mac: what the tools print is known from manuals, forums and the sources of others,
//! and wherever a tool says something else, nobody can tell.

mod simulator;
mod tools;
mod xcode;

pub use simulator::Simulator;
pub use tools::{CommandLineTools, Rosetta};
pub use xcode::Xcode;

use crate::provision::kind::command::said;
use crate::provision::question::{Answer, Ran};

/// How long what is fetched from Apple may take, in milliseconds: Xcode's platforms have gigabytes.
const FETCH_MS: u64 = 3 * 60 * 60 * 1000;

/// What a program said, or why it said nothing.
fn ran(answer: Answer) -> Result<Ran, String> {
    match answer {
        Answer::Ran(ran) => Ok(ran),
        other => Err(said(&other)),
    }
}

/// The link to the developer folder that is selected, which xcodebuild(1) and xcrun(1) run programs of (xcode-select(1)
/// writes it). An Xcode that somebody has put into /Applications is in that somebody's hands.
const SELECTED: &str = "/private/var/db/xcode_select_link";
