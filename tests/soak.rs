//! A minute of clients at work while collection runs every second and the server is killed every few seconds.
//!
//! `PANTRY_SOAK_SEED` repeats the choices of a run, `PANTRY_SOAK_SECONDS` makes it longer; ten minutes of the same are
//! `cargo bench --bench soak`.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "soak/audit.rs"]
mod audit;
#[path = "soak/driver.rs"]
mod driver;
#[path = "soak/model.rs"]
mod model;
#[path = "soak/random.rs"]
mod random;
#[path = "soak/server.rs"]
mod server;
#[path = "soak/uploading.rs"]
mod uploading;
#[path = "soak/wire.rs"]
mod wire;
#[path = "soak/worker.rs"]
mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use driver::Soak;
use server::Program;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn what_was_acknowledged_survives_collection_and_deaths_and_nothing_else_does() {
    let named = std::env::var_os("PANTRY_TEST_BUNDLE").map(PathBuf::from);
    let bundle = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-bundle"));
    assert!(bundle.join("index.json").exists(), "there is no bundle: run `make test-bundle` once");
    let seed = number("PANTRY_SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed_0000);
    println!("seed {seed}");
    let soak = Soak {
        seed,
        span: Duration::from_secs(number("PANTRY_SOAK_SECONDS").unwrap_or(50)),
        workers: 4,
        grace: Duration::from_secs(3),
        death_every_ms: (2_000, 5_000),
    };
    let folder = tempfile::Builder::new().prefix("pantry-soak-").tempdir().unwrap();
    let program =
        Program { binary: env!("CARGO_BIN_EXE_pantry").into(), bundle: Some(bundle), settings: Vec::new() };
    let found = soak.run(program, &folder.path().join("root")).unwrap_or_else(|error| panic!("{error:?}"));
    println!("{found}");
    // A soak in which nothing happened would show nothing.
    for act in [
        "push image",
        "pull image",
        "head, then reference",
        "mount",
        "move tag",
        "delete tag",
        "delete manifest",
    ] {
        assert!(found.counts.get(act).is_some_and(|count| *count > 0), "nobody did: {act}\n{found}");
    }
    assert!(found.deaths >= 4 && found.lost > 0 && found.most_files > 0, "the server hardly died: {found}");
}
