//! Which tests there are, in which order. Pure.

use crate::packs::{APP_DIR, PackCommand};

use super::job::Job;

/// The interpreter in every root.
const PYTHON: &str = "/usr/bin/python3";
/// Imports a component.
const IMPORT: &str = include_str!("import.py");
/// Finds a program on the pack's own `PATH`, inside the jail, where links of the pack lead nowhere else.
const FIND: &str = "import os, sys\n\
    try:\n    os.execvp(sys.argv[1], sys.argv[1:])\n\
    except OSError as error:\n    print(f'{sys.argv[1]}: {error.strerror}', file=sys.stderr)\n    sys.exit(127)\n";
/// More than this in one command line is no test.
const ARGV_CAP: usize = 128 * 1024;
const NAME_CAP: usize = 200;

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedTest {
    /// As it appears in the report.
    pub(super) name: String,
    pub(super) argv: Vec<String>,
    pub(super) proof: Proof,
    /// What the package allows itself, in milliseconds.
    pub(super) wall_ms: Option<u64>,
}

/// What a test must show beside exiting with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing.
    Exit,
    /// That it reached the line after the import.
    Token,
}

impl PlannedTest {
    /// Why the command line can't be run at all, if so: the jail takes it for an error of ours otherwise.
    pub(super) fn unusable(&self) -> Option<&'static str> {
        if self.argv.iter().any(|word| word.contains('\0')) {
            Some("its command line has a NUL byte")
        } else if self.argv.iter().map(String::len).sum::<usize>() > ARGV_CAP {
            Some("its command line is longer than 128 KiB")
        } else {
            None
        }
    }
}

/// The tests: an import for each Python component, `--help` for each command, then the package's own.
pub(super) fn plan(job: &Job, commands: &[PackCommand]) -> Vec<PlannedTest> {
    let imports = job.components.iter().filter(|component| is_python(&component.path)).map(|component| {
        let path = format!("{APP_DIR}/{}", component.path);
        let module = module_name(&component.path);
        let name = format!("{}/{}/import", component.kind, component.name);
        let argv = vec![PYTHON.to_owned(), "-c".to_owned(), IMPORT.to_owned(), path, module];
        PlannedTest { name: capped(name), argv, proof: Proof::Token, wall_ms: None }
    });
    let helps = commands.iter().map(|command| {
        let words = std::iter::once(&command.path).chain(&command.arguments).cloned();
        PlannedTest {
            name: capped(format!("command/{}/help", command.name)),
            argv: found(words.chain(["--help".to_owned()]).collect()),
            proof: Proof::Exit,
            wall_ms: None,
        }
    });
    let own = job.test.iter().filter(|test| !test.argv.is_empty()).map(|test| PlannedTest {
        name: "test".to_owned(),
        argv: found(test.argv.clone()),
        proof: Proof::Exit,
        wall_ms: (test.timeout_seconds > 0).then(|| test.timeout_seconds.saturating_mul(1000)),
    });
    imports.chain(helps).chain(own).collect()
}

fn is_python(path: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|extension| extension == "py")
}

/// The name under which the rest of the package would import the file, so that its relative imports work.
fn module_name(path: &str) -> String {
    let parts: Vec<&str> = path.trim_end_matches(".py").split('/').collect();
    let identifier = |part: &&str| {
        !part.is_empty()
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    if parts.iter().all(identifier) { parts.join(".") } else { "component".to_owned() }
}

/// A jail starts absolute paths only; any other program is looked up inside.
fn found(argv: Vec<String>) -> Vec<String> {
    if argv.first().is_some_and(|program| program.starts_with('/')) {
        return argv;
    }
    [PYTHON, "-I", "-S", "-c", FIND].into_iter().map(str::to_owned).chain(argv).collect()
}

fn capped(name: String) -> String {
    if name.chars().count() <= NAME_CAP { name } else { name.chars().take(NAME_CAP).collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
