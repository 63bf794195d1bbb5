//! The host's Python: where its standard library is, and compiled files that fixed times can't make stale.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::elf;
use super::error::RootfsError;

/// Into how many processes the compilation is split. Fixed: the order of work shows in the bytes.
const SHARDS: usize = 2;

const QUERY: &str = "import json, sys, sysconfig
print(json.dumps({'stdlib': sysconfig.get_path('stdlib'), 'tag': sys.implementation.cache_tag,
  'version': '.'.join(map(str, sys.version_info[:3]))}))";

const COMPILE: &str = "import py_compile, sys
for line in open(sys.argv[1], encoding='utf-8'):
    source, inside, compiled = line.rstrip('\\n').split('\\t')
    py_compile.compile(source, compiled, inside, doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)";

/// A Python of the host.
#[derive(Debug)]
pub(crate) struct Python {
    /// The program itself, no link and no script.
    pub(crate) program: PathBuf,
    /// The folder of its standard library.
    pub(crate) stdlib: String,
    /// Its version, as in `3.11.2`.
    pub(crate) version: String,
    tag: String,
}

#[derive(Deserialize)]
struct Answer {
    stdlib: String,
    tag: String,
    version: String,
}

/// One source to compile.
pub(crate) struct Compilation {
    /// Its path in the root, which is the host's too.
    pub(crate) inside: String,
    /// Where the result goes in the root.
    pub(crate) compiled_inside: String,
    /// Where the result lies meanwhile.
    pub(crate) staged: PathBuf,
}

impl Python {
    /// Asks a Python what it is.
    ///
    /// Links are followed first, and what they lead to has to be ELF: what stands under the name may be a script of some
    /// version manager.
    pub(crate) fn find(path: &str, package: &str) -> Result<Self, RootfsError> {
        let program = real_program(Path::new(path), package)?;
        let output = run(Command::new(&program).args(["-I", "-S", "-c", QUERY]).env_clear())?;
        let answer: Answer = serde_json::from_slice(&output).map_err(|_| RootfsError::Program {
            path: program.clone(),
            reason: "it doesn't answer as Python does",
            package: Some(package.to_owned()),
        })?;
        Ok(Self { program, stdlib: answer.stdlib, version: answer.version, tag: answer.tag })
    }

    /// What the compiled form of a source is called in the root.
    pub(crate) fn compiled_name(&self, source: &str) -> Option<String> {
        let (folder, name) = source.rsplit_once('/')?;
        Some(format!("{folder}/__pycache__/{}.{}.pyc", name.strip_suffix(".py")?, self.tag))
    }

    /// Compiles sources to files that are taken as they are, whatever the time of the source.
    ///
    /// The hash seed is fixed and each process works in a fixed order, because both show in the result.
    pub(crate) fn compile(&self, work: &Path, sources: &[Compilation]) -> Result<(), RootfsError> {
        let mut running = Vec::new();
        for shard in 0..SHARDS {
            let mut list = String::new();
            for source in sources.iter().skip(shard).step_by(SHARDS) {
                let inside = &source.inside;
                list.extend([inside, "\t", inside, "\t", &source.staged.display().to_string(), "\n"]);
            }
            let list_path = work.join(format!("compile-{shard}"));
            fs_err::write(&list_path, list)?;
            let child = Command::new(&self.program)
                .args(["-s", "-S", "-B", "-c", COMPILE])
                .arg(&list_path)
                .current_dir(work)
                .env_clear()
                .env("PYTHONHASHSEED", "0")
                .env("LC_ALL", "C.UTF-8")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(RootfsError::stream(&self.program))?;
            running.push(child);
        }
        // Every process is waited for, also when an earlier one failed.
        let results: Vec<_> = running.into_iter().map(std::process::Child::wait_with_output).collect();
        for result in results {
            let output = result.map_err(RootfsError::stream(&self.program))?;
            if !output.status.success() {
                return Err(failed(&self.program, &output));
            }
        }
        Ok(())
    }
}

/// Follows links to a program and refuses what isn't ELF.
pub(crate) fn real_program(path: &Path, package: &str) -> Result<PathBuf, RootfsError> {
    let package = (!package.is_empty()).then(|| package.to_owned());
    let Ok(program) = fs_err::canonicalize(path) else {
        return Err(RootfsError::Missing { path: path.to_owned(), package });
    };
    let mut start = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(fs_err::File::open(&program)?, 4), &mut start)?;
    if elf::is_elf(&start) {
        Ok(program)
    } else {
        Err(RootfsError::Program { path: program, reason: "it isn't an ELF program", package })
    }
}

/// Runs a helper to its end and gives what it printed.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>, RootfsError> {
    let program = PathBuf::from(command.get_program());
    let output = command.stdin(Stdio::null()).output().map_err(RootfsError::stream(&program))?;
    if output.status.success() { Ok(output.stdout) } else { Err(failed(&program, &output)) }
}

fn failed(program: &Path, output: &std::process::Output) -> RootfsError {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    RootfsError::Helper {
        program: program.display().to_string(),
        status: output.status.to_string(),
        stderr: lines[lines.len().saturating_sub(5)..].join(" | "),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("python3");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let error = Python::find(script.to_str().unwrap(), "python3").unwrap_err();
        assert_eq!(error.code(), "rootfs_program_unusable");
        assert!(error.hint().unwrap().contains("python3"));
        assert_eq!(real_program(&folder.path().join("no"), "p").unwrap_err().code(), "rootfs_file_missing");
    }
}
