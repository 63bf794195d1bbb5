//! The executable and what it carries: sizes, and the time to put a bundle together.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use pantry::rootfs::{Bundle, write_without_payload};

use crate::report::{Report, Table};

/// Sizes of the executable with and without its bundle, and of the bundle's layers.
pub fn sizes(binary: &Path, folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let plain = folder.join("plain");
    write_without_payload(binary, &plain)?;
    let mut table = Table::new("size", &["MB"]);
    let mut row = |name: &str, bytes: u64| table.row(name, vec![Some(bytes as f64 / 1e6)]);
    row("executable with bundle", fs_err::metadata(binary)?.len());
    row("executable without", fs_err::metadata(&plain)?.len());
    match Bundle::open_executable(binary)? {
        Some(bundle) => {
            for layer in bundle.layers() {
                row(&format!("  layer {}, compressed", layer.role.as_str()), layer.size_bytes);
            }
        }
        None => report.note("this executable carries no bundle: both sizes are the same"),
    }
    report.table(&table);
    Ok(())
}

/// Puts a bundle together from this machine's programs: the first time, and again with uv's wheel kept; checks it.
pub fn assemble(binary: &Path, folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let (work, out) = (folder.join("work"), folder.join("layout"));
    let mut table = Table::new("bundle, s", &["seconds"]);
    for name in ["assemble, uv to be found or fetched", "assemble, again"] {
        if out.exists() {
            fs_err::remove_dir_all(&out)?;
        }
        let mut command = Command::new(binary);
        command.args(["rootfs", "assemble", "--out"]).arg(&out).arg("--work").arg(&work);
        table.row(name, vec![Some(time(&mut command)?.as_secs_f64())]);
    }
    let mut check = Command::new(binary);
    table.row("check", vec![Some(time(check.args(["rootfs", "check"]).arg(&out))?.as_secs_f64())]);
    report.table(&table);
    Ok(())
}

fn time(command: &mut Command) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(began.elapsed())
}
