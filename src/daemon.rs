//! The daemon: what waits, what runs, and who may ask about it.
//!
//! [`queue`] decides which job gets the next free slot.

pub mod queue;
