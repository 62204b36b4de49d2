//! GitHub made for tests, and the tests of it: other tests include the server with
//! `#[path]`, as its own comment shows.

mod checks;
mod hub;
