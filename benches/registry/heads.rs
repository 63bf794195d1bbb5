//! Many HEAD requests at once from one thread: a thread a connection would measure the scheduler.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::event::{PollFd, PollFlags};

use crate::connection::end_of_head;
use crate::latency::Latencies;
use crate::target::{Target, Wire};

struct Line {
    stream: Wire,
    buffer: Vec<u8>,
    filled: usize,
    asked: Instant,
}

/// Asks the same over `connections` for as long as `span`, each connection one request at a time.
pub fn ask(target: &Target, request: &str, connections: usize, span: Duration) -> anyhow::Result<Latencies> {
    let request =
        format!("{}Accept: application/vnd.oci.image.manifest.v1+json\r\n\r\n", target.head(request));
    let mut lines = Vec::new();
    for _ in 0..connections {
        let stream = target.connect()?;
        stream.set_nonblocking()?;
        lines.push(Line { stream, buffer: vec![0; 8192], filled: 0, asked: Instant::now() });
    }
    let mut latencies = Latencies::default();
    let began = Instant::now();
    for line in &mut lines {
        line.ask(&request)?;
    }
    while began.elapsed() < span {
        let mut waited: Vec<PollFd<'_>> =
            lines.iter().map(|line| PollFd::new(&line.stream, PollFlags::IN)).collect();
        rustix::event::poll(&mut waited, None)?;
        let ready: Vec<bool> = waited.iter().map(|one| !one.revents().is_empty()).collect();
        for (line, _) in lines.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            if line.answered()? {
                latencies.push(line.asked.elapsed());
                line.ask(&request)?;
            }
        }
    }
    Ok(latencies)
}

impl Line {
    fn ask(&mut self, request: &str) -> anyhow::Result<()> {
        self.asked = Instant::now();
        // A request of some hundred bytes always fits an empty socket buffer.
        self.stream.write_all(request.as_bytes())?;
        Ok(self.stream.flush()?)
    }

    fn answered(&mut self) -> anyhow::Result<bool> {
        let read = match self.stream.read(&mut self.buffer[self.filled..]) {
            // A part of a record of TLS.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            other => other?,
        };
        ensure!(read > 0, "the server closed the connection");
        self.filled += read;
        if end_of_head(&self.buffer[..self.filled]).is_none() {
            return Ok(false);
        }
        ensure!(self.buffer.starts_with(b"HTTP/1.1 200"), "HEAD of a manifest was refused");
        self.filled = 0;
        Ok(true)
    }
}
