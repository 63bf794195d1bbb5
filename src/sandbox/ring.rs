//! A bounded store of printed bytes: the beginning and the end are kept, the middle is dropped and counted.

use std::collections::VecDeque;
use std::fmt::Write as _;

/// What is kept of an output stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes and, where some were dropped, the last ones right behind them.
    pub bytes: Vec<u8>,
    /// How many bytes were dropped between the two.
    pub dropped: u64,
    /// Where in `bytes` they were dropped.
    pub dropped_at: usize,
}

impl Captured {
    /// Gives the text for people: invalid UTF-8 replaced, control characters but newline and tab escaped, and the
    /// dropped middle named.
    #[must_use]
    pub fn text(&self) -> String {
        if self.dropped == 0 {
            return printable(&self.bytes);
        }
        let (head, tail) = self.bytes.split_at(self.dropped_at.min(self.bytes.len()));
        format!("{}\n[… {} bytes dropped …]\n{}", printable(head), self.dropped, printable(tail))
    }
}

fn printable(bytes: &[u8]) -> String {
    escaped(bytes, |character| matches!(character, '\n' | '\t'))
}

/// The text of one line for people: as [`Captured::text`], with line ends and tabs escaped too.
pub(crate) fn printable_line(bytes: &[u8]) -> String {
    escaped(bytes, |_| false)
}

/// Escapes control characters but those that `kept` names.
fn escaped(bytes: &[u8], kept: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        // Direction overrides can make a line read as another one, so they are escaped like control characters.
        let reorders =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if kept(character) || !(character.is_control() || reorders) {
            out.push(character);
        } else {
            let _infallible = write!(out, "\\u{{{:x}}}", u32::from(character));
        }
    }
    out
}

/// Collects a stream within a fixed number of bytes.
#[derive(Debug)]
pub(crate) struct Ring {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_cap: usize,
    tail_cap: usize,
    dropped: u64,
}

impl Ring {
    pub(crate) fn new(cap: usize) -> Self {
        let head_cap = cap / 2;
        Self { head: Vec::new(), tail: VecDeque::new(), head_cap, tail_cap: cap - head_cap, dropped: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let first = bytes.len().min(self.head_cap - self.head.len());
        self.head.extend_from_slice(&bytes[..first]);
        let rest = &bytes[first..];
        let kept = &rest[rest.len().saturating_sub(self.tail_cap)..];
        self.dropped += (rest.len() - kept.len()) as u64;
        let excess = (self.tail.len() + kept.len()).saturating_sub(self.tail_cap);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
        self.tail.extend(kept);
    }

    pub(crate) fn finish(self) -> Captured {
        let dropped_at = self.head.len();
        let mut bytes = self.head;
        bytes.extend(self.tail);
        Captured { bytes, dropped: self.dropped, dropped_at }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_output_is_kept_whole() {
        let mut ring = Ring::new(8);
        ring.push(b"abc");
        ring.push(b"defgh");
        let captured = ring.finish();
        assert_eq!(captured.bytes, b"abcdefgh");
        assert_eq!(captured.dropped, 0);
    }

    #[test]
    fn the_middle_is_dropped_and_said() {
        let mut ring = Ring::new(4);
        for byte in b"0123456789" {
            ring.push(&[*byte]);
        }
        let captured = ring.finish();
        assert_eq!(captured.bytes, b"0189");
        assert_eq!(captured.dropped, 6);
        assert_eq!(captured.text(), "01\n[… 6 bytes dropped …]\n89");
    }

    #[test]
    fn control_characters_are_escaped() {
        let captured = Captured { bytes: b"a\x1b[2J\r\n\tb\xff".to_vec(), ..Captured::default() };
        assert_eq!(captured.text(), "a\\u{1b}[2J\\u{d}\n\tb\u{fffd}");
        let captured = Captured { bytes: "x\u{202e}y".into(), ..Captured::default() };
        assert_eq!(captured.text(), "x\\u{202e}y");
    }

    proptest! {
        #[test]
        fn keeps_the_first_and_last_bytes(cap in 0_usize..40, chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..8)) {
            let mut ring = Ring::new(cap);
            for chunk in &chunks {
                ring.push(chunk);
            }
            let all = chunks.concat();
            let captured = ring.finish();
            prop_assert_eq!(captured.bytes.len(), all.len().min(cap));
            prop_assert_eq!(captured.bytes.len() as u64 + captured.dropped, all.len() as u64);
            let (head, tail) = captured.bytes.split_at(captured.dropped_at);
            prop_assert!(all.starts_with(head) && all.ends_with(tail));
        }
    }
}
