//! The runner: its program, its configuration, how it is started, and what its end means.
//!
//! What is known of it was read in the source of actions/runner 2.336.0 (commit 258d6c857); constants name the file,
//! relative to its `src`.

pub mod jit;
pub mod listener;
pub mod output;
pub mod tree;
pub mod version;
