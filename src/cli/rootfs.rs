//! `pantry rootfs …`: makes, checks and shows the root filesystem; needs no daemon.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use super::arguments::{Format, Global, Rootfs};
use super::failure::Failure;
use super::output::say;
use crate::rootfs::{self, AssembleOptions, Bundle, BundleSpec, RootfsError};

pub(super) fn run(global: &Global, command: &Rootfs) -> Result<(), Failure> {
    match command {
        Rootfs::Assemble { out, work, uv, pantry } => {
            let kept;
            let work = if let Some(work) = work {
                work.as_path()
            } else {
                kept = tempfile::tempdir()?;
                kept.path()
            };
            let program = match pantry {
                Some(program) => program.clone(),
                None => std::env::current_exe()?,
            };
            let report = rootfs::assemble(&AssembleOptions {
                spec: &BundleSpec::built_in().map_err(failed)?,
                pantry_binary: &program,
                out,
                work,
                uv: uv.clone(),
                progress: &|line| say(global, line),
            });
            show(global, &report.map_err(failed)?)
        }
        Rootfs::Check { path } => {
            let spec = BundleSpec::built_in().map_err(failed)?;
            let report = if path.join("index.json").is_file() {
                rootfs::check_layout(path, &spec)
            } else if path.is_dir() {
                rootfs::check_directory(path, &spec)
            } else {
                rootfs::check_bundle(&open(Some(path))?, &spec)
            };
            let report = report.map_err(failed)?;
            show(global, &report)?;
            if report.passed() {
                return Ok(());
            }
            let first = report.findings.first().map_or("rootfs_not_sound", |finding| finding.code.as_str());
            Err(Failure::rejected(first, format!("{} broken rule(s)", report.findings.len())))
        }
        Rootfs::Embed { layout, executable, out } => {
            let program = match executable {
                Some(program) => program.clone(),
                None => std::env::current_exe()?,
            };
            show(global, &rootfs::embed(&program, layout, out).map_err(failed)?)
        }
        Rootfs::Show { path } => {
            let bundle = open(path.as_deref())?;
            show(global, &rootfs::show(&bundle).map_err(failed)?)
        }
        Rootfs::Ls { path } => {
            let bundle = open(path.as_deref())?;
            let mut entries = Vec::new();
            rootfs::list(&bundle, &mut |entry| entries.push(entry)).map_err(failed)?;
            if global.output == Format::Json {
                return print_json(&entries);
            }
            let mut stdout = std::io::stdout().lock();
            for entry in &entries {
                // A reader that has seen enough is no failure.
                if writeln!(stdout, "{entry}").is_err() {
                    break;
                }
            }
            Ok(())
        }
        Rootfs::Export { out } => {
            let bundle = open(None)?;
            rootfs::export(&bundle, out).map_err(failed)?;
            say(global, &format!("written to {}", out.display()));
            Ok(())
        }
    }
}

/// A layout's folder, an executable, or what this executable carries.
fn open(path: Option<&Path>) -> Result<Bundle, Failure> {
    let found = match path {
        Some(folder) if folder.is_dir() => Bundle::open_layout(folder).map(Some),
        Some(program) => Bundle::open_executable(program),
        None => Bundle::open_embedded(),
    };
    found.map_err(failed)?.ok_or_else(|| {
        Failure::local("no_bundle_embedded", "the executable carries no bundle").with_hint(Some(
            "make one by `pantry rootfs assemble`, put it in by `pantry rootfs embed`".to_owned(),
        ))
    })
}

#[allow(clippy::needless_pass_by_value)] // `map_err` gives it away.
fn failed(error: RootfsError) -> Failure {
    Failure::local(error.code(), error.to_string()).with_hint(error.hint())
}

fn show<T: Display + Serialize>(global: &Global, report: &T) -> Result<(), Failure> {
    if global.output == Format::Json {
        return print_json(report);
    }
    let _ = writeln!(std::io::stdout(), "{}", report.to_string().trim_end());
    Ok(())
}

fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::local("internal_error", format!("the report does not encode: {error}")))?;
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}
