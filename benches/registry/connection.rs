//! One kept-alive HTTP/1.1 connection, as thin as can be: the client shares the cores with what it measures.

use std::io::{IoSlice, Read as _, Write as _};

use anyhow::{Context as _, bail, ensure};

use crate::target::{Target, Wire};

const BUFFER: usize = 256 * 1024;
/// Longest head of an answer.
const HEAD: usize = 16 * 1024;

/// A connection and what has been read of it too early.
pub struct Connection {
    target: Target,
    stream: Wire,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

/// What came back; the body went to the sink.
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub length: u64,
}

impl Answer {
    /// The answer, if it has this status.
    pub fn expect(self, status: u16, what: &str) -> anyhow::Result<Self> {
        ensure!(self.status == status, "{what} was answered with {} instead of {status}", self.status);
        Ok(self)
    }
}

impl Connection {
    /// Connects.
    pub fn open(target: &Target) -> anyhow::Result<Self> {
        Ok(Self {
            target: target.clone(),
            stream: target.connect()?,
            buffer: vec![0; BUFFER],
            from: 0,
            to: 0,
        })
    }

    /// Sends a request whose body stands in pieces, and drops the body of the answer.
    pub fn send(&mut self, line: &str, kind: &str, body: &[&[u8]]) -> anyhow::Result<Answer> {
        self.exchange(line, kind, body, &mut |_| {})
    }

    /// The same, where the body says which bytes of the whole it is, both ends included.
    pub fn send_part(
        &mut self,
        line: &str,
        first: usize,
        last: usize,
        body: &[&[u8]],
    ) -> anyhow::Result<Answer> {
        let kind = format!("application/octet-stream\r\nContent-Range: {first}-{last}");
        self.exchange(line, &kind, body, &mut |_| {})
    }

    /// Sends a request without a body and gives the answer's to the sink.
    pub fn fetch(&mut self, line: &str, sink: &mut dyn FnMut(&[u8])) -> anyhow::Result<Answer> {
        self.exchange(line, "", &[], sink)
    }

    fn exchange(
        &mut self,
        line: &str,
        kind: &str,
        body: &[&[u8]],
        sink: &mut dyn FnMut(&[u8]),
    ) -> anyhow::Result<Answer> {
        let length: usize = body.iter().map(|piece| piece.len()).sum();
        let accept = "application/vnd.oci.image.manifest.v1+json, */*";
        let mut head = self.target.head(line);
        head.extend(["Accept: ", accept, "\r\n"]);
        if !kind.is_empty() {
            head.extend(["Content-Type: ", kind, "\r\nContent-Length: ", &length.to_string(), "\r\n"]);
        }
        head += "\r\n";
        let mut pieces = vec![IoSlice::new(head.as_bytes())];
        pieces.extend(body.iter().map(|piece| IoSlice::new(piece)));
        let mut left = &mut pieces[..];
        while !left.is_empty() {
            let written = self.stream.write_vectored(left)?;
            IoSlice::advance_slices(&mut left, written);
        }
        self.stream.flush()?;
        let answer = self.head(line.starts_with("HEAD"))?;
        self.body(answer.length, sink)?;
        Ok(answer)
    }

    fn head(&mut self, bodiless: bool) -> anyhow::Result<Answer> {
        let end = loop {
            if let Some(place) = end_of_head(&self.buffer[self.from..self.to]) {
                break self.from + place;
            }
            ensure!(self.to - self.from < HEAD, "the head of the answer has no end");
            if self.from > 0 {
                self.buffer.copy_within(self.from..self.to, 0);
                (self.from, self.to) = (0, self.to - self.from);
            }
            self.fill()?;
        };
        let text = std::str::from_utf8(&self.buffer[self.from..end])?;
        let mut lines = text.split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
        let (mut location, mut length) = (None, None);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("location") {
                location = Some(path_of(value.trim()).to_owned());
            } else if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            }
        }
        let length = if bodiless || status == 204 || status == 304 { Some(0) } else { length };
        let Some(length) = length else { bail!("the answer {status} has no length") };
        self.from = end;
        Ok(Answer { status, location, length })
    }

    fn body(&mut self, length: u64, sink: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.from == self.to {
                (self.from, self.to) = (0, 0);
                self.fill()?;
            }
            let here = (self.to - self.from).min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&self.buffer[self.from..self.from + here]);
            self.from += here;
            left -= here as u64;
        }
        Ok(())
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read(&mut self.buffer[self.to..])?;
        ensure!(read > 0, "the server closed the connection in the middle of an answer");
        self.to += read;
        Ok(())
    }
}

/// The place after the empty line.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|place| place + 4)
}

/// Registries answer with a path or a whole address.
fn path_of(location: &str) -> &str {
    let Some((_, rest)) = location.split_once("://") else { return location };
    rest.find('/').map_or("/", |slash| &rest[slash..])
}
