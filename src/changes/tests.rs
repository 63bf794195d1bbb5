//! The engine on a real state file, with a clock that the test moves and tasks that follow a script.
#![allow(clippy::unwrap_used)]

mod failures;
mod keeping;
mod kill;
mod model;
mod running;
mod waits;
mod world;
