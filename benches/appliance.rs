//! The appliance as a person meets it: how soon it serves, what it holds, how long a submission takes.
//!
//! `docs/benchmarks.md` tells what a row means.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A bench prints.
#![allow(clippy::cast_precision_loss)] // Figures are for people.

#[allow(dead_code)] // Each bench uses its part of these.
#[path = "measure/arguments.rs"]
mod arguments;
#[path = "appliance/bundle.rs"]
mod bundle;
#[allow(dead_code)]
#[path = "measure/latency.rs"]
mod latency;
#[path = "measure/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "measure/process.rs"]
mod process;
#[path = "appliance/publishing.rs"]
mod publishing;
#[path = "measure/report.rs"]
mod report;
#[path = "appliance/starting.rs"]
mod starting;

use arguments::Arguments;
use report::Report;

const USAGE: &str = "\
cargo bench --bench appliance -- [--no-assemble] [--starts N] [--versions N] [--json FILE]
  --no-assemble  leave out putting bundles together
  --starts N     warm starts [default: 10]
  --versions N   submissions with warm wheels [default: 5]";

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(USAGE, &["--no-assemble"], &["--starts", "--versions"]);
    let binary = process::pantry_binary()?;
    let folder = tempfile::Builder::new().prefix("pantry-bench-").tempdir()?;
    let mut report = Report::new("appliance", machine::describe(folder.path()));
    bundle::sizes(&binary, folder.path(), &mut report)?;
    let (mut table, root) = starting::first(&binary, folder.path(), 3)?;
    starting::warm(&binary, &root, arguments.number("--starts", 10), &mut table)?;
    report.table(&table);
    report.table(&starting::idle(&binary, &root)?);
    publishing::measure(&binary, &root, folder.path(), arguments.number("--versions", 5), &mut report)?;
    if !arguments.has("--no-assemble") {
        bundle::assemble(&binary, folder.path(), &mut report)?;
    }
    report.finish(arguments.json.as_deref())
}
