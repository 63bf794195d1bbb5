//! Tables for people, JSON for programs.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

use super::arguments::{Format, Global};
use super::failure::Failure;

/// Prints a value as JSON, or by `people` as text.
///
/// # Errors
/// When stdout can't be written. A reader that has gone away has seen enough: that is none.
pub(super) fn print(
    global: &Global,
    value: &Value,
    people: impl FnOnce(&Value) -> String,
) -> Result<(), Failure> {
    let text = match global.output {
        Format::Json => serde_json::to_string_pretty(value).unwrap_or_default(),
        Format::Text => people(value),
    };
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::local("output_failed", format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Rows under headings, columns padded to their widest cell.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut headings.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// The text of a member, or a dash.
pub(super) fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => safe(text),
        None | Some(Value::Null) => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

/// Foreign text with its control characters escaped, so that it cannot drive a terminal.
pub(super) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A line on stderr about what is going on.
pub(super) fn say(global: &Global, line: &str) {
    if !global.quiet && global.output == Format::Text {
        let _ = writeln!(std::io::stderr(), "{}", safe(line));
    }
}

/// Is somebody watching?
pub(super) fn watched() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "long".to_owned()], vec!["bbb".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["ID", "N"], &rows), "ID   N\na    long\nbbb  x");
    }

    #[test]
    fn foreign_text_cannot_drive_a_terminal() {
        assert_eq!(safe("a\x1b[31mb\nc"), "a\\u{1b}[31mb\nc");
    }
}
