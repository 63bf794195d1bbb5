//! Where the log's lines go: to stderr, and nowhere when that takes none. A log must never stop what it tells of, so
//! nothing here fails or panics; what was lost is counted, and told as soon as a line can be written again.

use std::io::{Stderr, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogConfig;

/// Begins to log. A second logger in one process can only be a test's; the first one stays.
pub(super) fn start(log: &LogConfig, json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let json = json || log.json;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // What it would say of its own errors goes to stderr by a macro that panics where that can't be written.
        .log_internal_errors(false)
        .with_writer(Lines::new(std::io::stderr(), json))
        .with_target(false);
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(false).try_init()
    };
}

/// Lines for a writer that may refuse them; clones share one.
struct Lines<W = Stderr> {
    shared: Arc<Mutex<Shared<W>>>,
    json: bool,
}

struct Shared<W> {
    to: W,
    /// How many lines since the last one that was written.
    lost: u64,
    /// A part of a line was written.
    torn: bool,
}

impl<W> Lines<W> {
    fn new(to: W, json: bool) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { to, lost: 0, torn: false })), json }
    }
}

impl<W> Clone for Lines<W> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), json: self.json }
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for Lines<W> {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl<W: Write> Write for Lines<W> {
    /// Takes all of a line, whether it can be written or not.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.lost > 0 {
            let lost = shared.lost;
            let told = if self.json {
                format!(
                    "{{\"level\":\"WARN\",\"message\":\"lines of the log were lost\",\"lines\":{lost}}}\n"
                )
            } else {
                format!("WARN lines of the log were lost lines={lost}\n")
            };
            if !shared.put(told.as_bytes()) {
                shared.lost += 1;
                return Ok(line.len());
            }
            shared.lost = 0;
        }
        if !shared.put(line) {
            shared.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Shared<W> {
    /// Writes a line; `false` when not all of it could be.
    fn put(&mut self, line: &[u8]) -> bool {
        // The end of what is torn, so that this line is one of its own.
        if self.torn && !matches!(self.to.write(b"\n"), Ok(1)) {
            return false;
        }
        self.torn = false;
        let mut left = line;
        while !left.is_empty() {
            match self.to.write(left) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => {
                    self.torn = left.len() < line.len();
                    return false;
                }
                Ok(written) => left = left.get(written..).unwrap_or_default(),
            }
        }
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk {
        room: usize,
        text: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let fits = bytes.len().min(self.room);
            if fits == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.room -= fits;
            self.text.extend(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told() {
        for (json, told) in [
            (false, "WARN lines of the log were lost lines=3"),
            (true, r#"{"level":"WARN","message":"lines of the log were lost","lines":3}"#),
        ] {
            let mut lines = Lines::new(Disk { room: 10, text: Vec::new() }, json);
            let mut other = lines.clone();
            for line in ["first\n", "second\n", "third\n"] {
                lines.write_all(line.as_bytes()).unwrap();
            }
            other.write_all(b"fourth\n").unwrap();
            lines.flush().unwrap();
            lines.shared.lock().unwrap().to.room = 1_000;
            other.write_all(b"fifth\n").unwrap();
            lines.write_all(b"sixth\n").unwrap();
            let text = String::from_utf8(lines.shared.lock().unwrap().to.text.clone()).unwrap();
            assert_eq!(text, format!("first\nseco\n{told}\nfifth\nsixth\n"));
        }
    }
}
