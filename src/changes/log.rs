//! The log of a change: a file in its work folder while it lives.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::workspace::Workspace;
use crate::names::{ChangeId, Millis};

/// The file's name in the work folder.
const FILE: &str = "change.log";
/// Lines are dropped after this many bytes.
const LONGEST: u64 = 4 << 20;
/// What is read at most: the last line may end a little after the limit.
pub(super) const LONGEST_READ: u64 = LONGEST + (1 << 17);
/// The longest line, in bytes.
const LONGEST_LINE: usize = 16 << 10;

/// Appends to the live log of one change.
#[derive(Debug)]
pub(super) struct LiveLog {
    workspace: Workspace,
    change: ChangeId,
    file: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    file: fs_err::File,
    written: u64,
}

impl LiveLog {
    pub(super) fn of(workspace: Workspace, change: ChangeId) -> Self {
        Self { workspace, change, file: Mutex::new(None) }
    }

    /// Appends one line for each line of `text`, with the instant and who says it in front; blocks.
    pub(super) fn append(&self, now: Millis, who: &str, text: &str) -> io::Result<()> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            let path = self.workspace.make(&self.change)?.join(FILE);
            let file = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
            let written = file.metadata()?.len();
            *slot = Some(Open { file, written });
        }
        let Some(open) = slot.as_mut() else { return Ok(()) };
        if open.written >= LONGEST {
            return Ok(());
        }
        let mut lines = String::new();
        for line in text.lines() {
            lines.extend([now.rfc3339().as_str(), " ", who, ": ", printable(line).as_str(), "\n"]);
        }
        let room = usize::try_from(LONGEST - open.written).unwrap_or(usize::MAX);
        let full = lines.len() > room;
        if full {
            lines.truncate(lines.floor_char_boundary(room));
            lines.push_str("\n… the log is full; further lines are dropped\n");
        }
        open.file.write_all(lines.as_bytes())?;
        open.written = if full { LONGEST } else { open.written + lines.len() as u64 };
        Ok(())
    }
}

/// The line as it may be shown on a terminal: what a package prints must not move the cursor of who reads it.
fn printable(line: &str) -> String {
    let line = &line[..line.floor_char_boundary(LONGEST_LINE)];
    line.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The live log as bytes; `None` when nothing was written.
pub(super) fn read(folder: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs_err::File::open(folder.join(FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(LONGEST_READ).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The lines of a log.
pub(super) fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}
