//! The trace test: what the programs really open on the host is in the root, or on the list with a reason.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::check::{Finding, FindingCode};
use super::closure::{Files as _, Host, triplet};
use super::elf::machine_of;
use super::error::RootfsError;
use super::python::{real_program, run};
use super::spec::{BundleSpec, fits};

/// Fixed exercises: each uses what is opened only at run time.
const EXERCISES: [(&str, &[&str]); 3] = [
    (
        "/usr/bin/python3",
        &[
            "-I",
            "-S",
            "-c",
            "import bz2, codecs, ctypes, curses, datetime, hashlib, json, locale, lzma, mimetypes, os, pwd, readline
import socket, sqlite3, ssl, subprocess, sysconfig, tempfile, threading, unicodedata, zlib, zoneinfo
locale.setlocale(locale.LC_ALL, 'C.UTF-8')
mimetypes.init(); pwd.getpwuid(0); zoneinfo.ZoneInfo('Europe/Berlin'); ssl.create_default_context()
curses.setupterm('xterm', 1); sqlite3.connect(':memory:'); sysconfig.get_config_vars()
socket.getaddrinfo('localhost', 80)
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
ctypes.CDLL('libstdc++.so.6')",
        ],
    ),
    ("/usr/bin/git", &["--no-pager", "version", "--build-options"]),
    ("/usr/bin/git", &["init", "--quiet", "{scratch}/repository"]),
];

/// The outcome of a trace.
#[derive(Debug, Clone, Serialize)]
pub struct TraceReport {
    /// What was opened and isn't in the root.
    pub findings: Vec<Finding>,
    /// How many different files were opened.
    pub opened: u64,
}

impl fmt::Display for TraceReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(out, "{finding}")?;
        }
        write!(out, "{} files opened, {} of them not in the root", self.opened, self.findings.len())
    }
}

/// Runs the exercises on the host under strace and looks for each opened file in the unpacked `root`.
///
/// Gives `None` where strace isn't installed. Only for development and tests: it runs the host's programs.
///
/// # Errors
/// When an exercise or strace fails.
pub fn trace_host(
    root: &Path,
    scratch: &Path,
    spec: &BundleSpec,
) -> Result<Option<TraceReport>, RootfsError> {
    let Ok(strace) = real_program(Path::new("/usr/bin/strace"), "strace") else { return Ok(None) };
    let root = fs_err::canonicalize(root)?;
    let scratch = fs_err::canonicalize(scratch)?;
    let mut opened = BTreeSet::new();
    for (number, (program, arguments)) in EXERCISES.iter().enumerate() {
        let log = scratch.join(format!("trace-{number}"));
        let scratch_text = scratch.display().to_string();
        run(Command::new(&strace)
            .args(["-f", "-qq", "-s", "4096", "-e", "trace=open,openat,execve", "-o"])
            .arg(&log)
            .arg(program)
            .args(arguments.iter().map(|argument| argument.replace("{scratch}", &scratch_text)))
            .current_dir(&scratch)
            .env_clear()
            .env("PATH", "/usr/bin")
            .env("HOME", &scratch))?;
        opened.extend(fs_err::read_to_string(&log)?.lines().filter_map(opened_file));
    }
    let inside_scratch = format!("{}/", scratch.display());
    let triplet = triplet(machine_of(std::env::consts::ARCH).unwrap_or_default());
    let known = |path: &str| {
        path.starts_with(&inside_scratch)
            || path.starts_with("/proc/")
            || path.starts_with("/dev/")
            || spec.trace.iter().any(|exception| fits(&exception.path.replace("{triplet}", triplet), path))
    };
    let findings = opened
        .iter()
        .filter(|path| !known(path))
        // The host's folders may be links where the root's are not: the real path is what counts.
        .filter(|path| {
            Host.real_file(path).is_none_or(|real| fs_err::symlink_metadata(root.join(&real[1..])).is_err())
        })
        .map(|path| Finding {
            code: FindingCode::RequiredMissing,
            path: path.clone(),
            detail: "a program opened it on the host".to_owned(),
        })
        .collect();
    Ok(Some(TraceReport { findings, opened: opened.len() as u64 }))
}

/// The absolute path of a successful open of something that isn't a folder, from a line of the log.
fn opened_file(line: &str) -> Option<String> {
    let (call, result) = line.rsplit_once(" = ")?;
    if result.starts_with('-') || call.contains("O_DIRECTORY") {
        return None;
    }
    let path = call.split('"').nth(1)?;
    (path.starts_with('/') && !Path::new(path).is_dir()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log() {
        let line = |text: &str| opened_file(text);
        assert_eq!(
            line("12 openat(AT_FDCWD, \"/etc/hosts\", O_RDONLY|O_CLOEXEC) = 3").as_deref(),
            Some("/etc/hosts")
        );
        assert_eq!(
            line("12 openat(AT_FDCWD, \"/etc/gone\", O_RDONLY) = -1 ENOENT (No such file or directory)"),
            None
        );
        assert_eq!(line("12 openat(AT_FDCWD, \"/usr\", O_RDONLY) = 3"), None);
        assert_eq!(line("12 openat(AT_FDCWD, \"here\", O_RDONLY) = 3"), None);
        assert_eq!(line("12 +++ exited with 0 +++"), None);
    }
}
