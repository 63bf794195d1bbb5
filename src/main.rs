//! The `pantry` program.

fn main() {
    pantry::sandbox::jail_entry();
}
