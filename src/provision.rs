//! What a host must have before jobs run on it.

pub mod scan;
