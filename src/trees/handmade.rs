//! Archives written byte by byte, for tests: a library would refuse to write most of them.

use std::io::Write as _;

/// A tar that is being put together.
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A header with anything in it, followed by its content.
    pub(crate) fn raw(
        mut self,
        name: &[u8],
        kind: u8,
        mode: u32,
        size: u64,
        link: &[u8],
        content: &[u8],
    ) -> Self {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name);
        let mut field =
            |at: usize, text: String| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(100, format!("{mode:07o}"));
        field(108, "0000000".to_owned());
        field(116, "0000000".to_owned());
        field(124, format!("{size:011o}"));
        field(136, "14000000000".to_owned());
        field(148, "        ".to_owned());
        field(257, "ustar\x0000".to_owned());
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link);
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.file_mode(name, 0o644, content)
    }

    pub(crate) fn file_mode(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.raw(name.as_bytes(), b'0', mode, content.len() as u64, b"", content)
    }

    pub(crate) fn directory(self, name: &str, mode: u32) -> Self {
        self.raw(name.as_bytes(), b'5', mode, 0, b"", b"")
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'2', 0o777, 0, target.as_bytes(), b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'1', 0o644, 0, target.as_bytes(), b"")
    }

    /// An extended header for the entry that follows (`x`) or for all that follow (`g`).
    pub(crate) fn extended(self, kind: u8, pairs: &[(&str, &str)]) -> Self {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (key, value) in pairs {
            let rest = key.len() + value.len() + 3;
            let length =
                (rest..rest + 20).find(|length| rest + length.to_string().len() == *length).unwrap_or(rest);
            let _ = writeln!(text, "{length} {key}={value}");
        }
        self.raw(b"header", kind, 0o644, text.len() as u64, b"", text.as_bytes())
    }

    /// The archive without its end mark.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub(crate) fn gzip(self) -> Vec<u8> {
        gzip(&self.end())
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}
