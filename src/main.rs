//! The `pantry` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Inside a jail this process must become the jail's helper or the extractor before anything else happens:
    // no runtime, no TLS provider, no argument parser may exist yet. Each returns only where it isn't meant.
    pantry::sandbox::jail_entry();
    pantry::trees::extract_entry();
    pantry::sandbox::settle_name_service();
    pantry::sandbox::settle_memory();
    pantry::cli::run()
}
