//! The text of a wrapper: a `#!` line that starts us, and lines for people.

use std::path::Path;

use crate::names::CommandName;

use super::error::InstallError;
use super::record::Installed;

/// The second line of each wrapper, by which we know our own.
const MARK: &str = "# pantry wrapper 1";

/// The longest first line; the kernel reads 256 bytes.
const LINE_CAP: usize = 250;

/// The link to our program beside the wrappers, for a path that is too long or has spaces.
pub(crate) const SHORT_LINK: &str = ".pantry";

/// What a wrapper's first line starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interpreter {
    /// Our program by its own path.
    Program(String),
    /// Our program by a link in the folder of wrappers.
    Link(String),
}

impl Interpreter {
    /// Chooses what the first line names.
    pub(crate) fn choose(program: &Path, bin: &Path) -> Result<Self, InstallError> {
        if let Some(path) = usable(program) {
            return Ok(Self::Program(path));
        }
        usable(&bin.join(SHORT_LINK)).map(Self::Link).ok_or_else(|| InstallError::Interpreter {
            path: program.to_owned(),
            why: "its path and that of the root are too long for a first line, or hold a space",
        })
    }

    fn path(&self) -> &str {
        match self {
            Self::Program(path) | Self::Link(path) => path,
        }
    }
}

/// The path, when a `#!` line can hold it: absolute, short, and without a character that ends or splits it.
fn usable(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let plain = text.starts_with('/') && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    (plain && line(text).len() <= LINE_CAP).then(|| text.to_owned())
}

fn line(path: &str) -> String {
    format!("#!{path} exec")
}

/// The wrapper of a command.
pub(crate) fn text(
    interpreter: &Interpreter,
    root: &Path,
    record: &Installed,
    command: &CommandName,
) -> String {
    format!(
        "{}\n{MARK}\nroot: {}\npack: {} {}\ndigest: {}\nrevision: {}\ncommand: {command}\n",
        line(interpreter.path()),
        root.display().to_string().escape_debug(),
        record.id,
        record.version,
        record.digest,
        record.revision,
    )
}

/// Whether a file's beginning is that of a wrapper of ours.
pub(crate) fn is_ours(beginning: &[u8]) -> bool {
    let mut lines = beginning.split(|&byte| byte == b'\n');
    lines.next().is_some_and(|first| first.starts_with(b"#!") && first.ends_with(b" exec"))
        && lines.next() == Some(MARK.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_program_or_a_short_link_or_nothing() {
        let bin = Path::new("/var/lib/pantry/bin");
        let choose = |program: &str, bin: &Path| Interpreter::choose(Path::new(program), bin);
        assert_eq!(choose("/usr/bin/pantry", bin).unwrap(), Interpreter::Program("/usr/bin/pantry".into()));
        let link = Interpreter::Link("/var/lib/pantry/bin/.pantry".into());
        let long = format!("/{}/pantry", "d".repeat(250));
        for odd in [long.as_str(), "/opt/my tools/pantry", "/opt/a\nb/pantry", "pantry"] {
            assert_eq!(choose(odd, bin).unwrap(), link, "{odd}");
        }
        assert_eq!(choose(&long, Path::new("/my root/bin")).unwrap_err().code(), "wrapper_impossible");
        // "#!" and " exec" count.
        assert!(matches!(choose(&format!("/{}", "p".repeat(242)), bin).unwrap(), Interpreter::Program(_)));
        assert!(matches!(choose(&format!("/{}", "p".repeat(243)), bin).unwrap(), Interpreter::Link(_)));
    }

    #[test]
    fn other_scripts_are_not_taken_for_ours() {
        assert!(is_ours(b"#!/usr/bin/pantry exec\n# pantry wrapper 1\nroot: /x\n"));
        for other in [&b"#!/bin/sh\necho\n"[..], b"", b"#!/usr/bin/pantry exec\n", b"\x7fELF"] {
            assert!(!is_ours(other));
        }
    }
}
