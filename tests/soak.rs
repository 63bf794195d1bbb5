//! A minute of clients at work while collection runs every second and the server is killed every few seconds.
//!
//! `PANTRY_SOAK_SEED` repeats the choices of a run, `PANTRY_SOAK_SECONDS` makes it longer; ten minutes of the same are
//! `cargo bench --bench soak`. A failure tells what was done with what it is about, and keeps the root, what each client
//! asked, and all that the server said. To narrow it down, `PANTRY_SOAK_WORKERS` sets the number of clients, and
//! `PANTRY_SOAK_DEATHS=0` lets the server live: with one client such a run repeats all but the times.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "soak/audit.rs"]
mod audit;
#[path = "soak/driver.rs"]
mod driver;
#[path = "soak/fates.rs"]
mod fates;
#[path = "soak/history.rs"]
mod history;
#[path = "soak/images.rs"]
mod images;
#[path = "soak/model.rs"]
mod model;
#[path = "soak/random.rs"]
mod random;
#[path = "soak/reading.rs"]
mod reading;
#[path = "soak/roots.rs"]
mod roots;
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
    let narrowed = (number("PANTRY_SOAK_WORKERS"), number("PANTRY_SOAK_DEATHS"));
    let soak = Soak {
        seed,
        span: Duration::from_secs(number("PANTRY_SOAK_SECONDS").unwrap_or(40)),
        workers: narrowed.0.map_or(4, |workers| usize::try_from(workers).unwrap()),
        grace: Duration::from_secs(3),
        death_every_ms: (narrowed.1 != Some(0)).then_some((2_000, 5_000)),
    };
    let folder = tempfile::Builder::new().prefix("pantry-soak-").tempdir().unwrap();
    let program =
        Program { binary: env!("CARGO_BIN_EXE_pantry").into(), bundle: Some(bundle), settings: Vec::new() };
    let found = soak.run(program, &folder.path().join("root")).unwrap_or_else(|error| {
        let kept = folder.keep();
        panic!("{error:?}\neverything is kept in {}", kept.display())
    });
    println!("{found}");
    if narrowed != (None, None) {
        return;
    }
    // A soak in which nothing happened would show nothing.
    for act in [
        "push image",
        "push index",
        "push referrer",
        "pull image",
        "head, then reference",
        "mount",
        "move tag",
        "delete tag",
        "delete manifest",
        "delete blob",
        "bring what is owed",
        "apply retention",
        "remove repository",
        "named by sha512",
        "manifests before their blobs",
        "indexes over children that were deleted",
        "children deleted before their index",
        "manifests about what is not there",
        "tags that retention took",
    ] {
        assert!(found.counts.get(act).is_some_and(|count| *count > 0), "nobody did: {act}\n{found}");
    }
    assert!(found.deaths >= 4 && found.lost > 0 && found.most_files > 0, "the server hardly died: {found}");
}
