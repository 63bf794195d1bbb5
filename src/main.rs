//! The `pantry` program.

fn main() {}
