//! Ten minutes of clients at work while collection runs every second and the server is killed every few seconds.
//!
//! Not a measurement: it ends with an error when anything that was acknowledged is not there at the end, or anything
//! else is.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A bench prints.

#[allow(dead_code)]
#[path = "measure/arguments.rs"]
mod arguments;
#[path = "../tests/soak/audit.rs"]
mod audit;
#[path = "../tests/soak/driver.rs"]
mod driver;
#[path = "../tests/soak/fates.rs"]
mod fates;
#[path = "../tests/soak/history.rs"]
mod history;
#[path = "../tests/soak/images.rs"]
mod images;
#[path = "../tests/soak/model.rs"]
mod model;
#[path = "../tests/soak/random.rs"]
mod random;
#[path = "../tests/soak/reading.rs"]
mod reading;
#[path = "../tests/soak/roots.rs"]
mod roots;
#[path = "../tests/soak/server.rs"]
mod server;
#[path = "../tests/soak/uploading.rs"]
mod uploading;
#[path = "../tests/soak/wire.rs"]
mod wire;
#[path = "../tests/soak/worker.rs"]
mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;

use arguments::Arguments;
use driver::Soak;
use server::Program;

const USAGE: &str = "\
cargo bench --bench soak -- [--seconds N] [--workers N] [--grace N] [--seed N] [--no-deaths]
  --seconds N  how long the clients work [default: 600]
  --workers N  how many there are [default: 8]
  --grace N    for how many seconds the server keeps what nobody refers to [default: 3]
  --seed N     repeats the choices of a run
  --no-deaths  lets the server live: with one client such a run repeats all but the times";

fn main() -> anyhow::Result<()> {
    let arguments =
        Arguments::parse(USAGE, &["--no-deaths"], &["--seconds", "--workers", "--grace", "--seed"]);
    let named = std::env::var_os("PANTRY_BENCH_BINARY").map(PathBuf::from);
    let binary = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pantry"));
    ensure!(
        binary.is_file(),
        "{} isn't there: run `make bundle`, or name one by PANTRY_BENCH_BINARY",
        binary.display()
    );
    let chosen = getrandom::u32().map_err(std::io::Error::from)?;
    let soak = Soak {
        seed: arguments.number("--seed", usize::try_from(chosen)?) as u64,
        span: Duration::from_secs(arguments.number("--seconds", 600) as u64),
        workers: arguments.number("--workers", 8),
        grace: Duration::from_secs(arguments.number("--grace", 3) as u64),
        death_every_ms: (!arguments.has("--no-deaths")).then_some((2_000, 5_000)),
    };
    println!("soak: seed {}, {} s, {} clients", soak.seed, soak.span.as_secs(), soak.workers);
    let folder = tempfile::Builder::new().prefix("pantry-soak-").tempdir()?;
    let program = Program { binary, bundle: None, settings: Vec::new() };
    match soak.run(program, &folder.path().join("root")) {
        Ok(seen) => println!("{seen}"),
        Err(error) => {
            let kept = folder.keep();
            eprintln!("everything is kept in {}", kept.display());
            return Err(error);
        }
    }
    Ok(())
}
