//! One layer far larger than memory may grow: pushed in one PATCH, pulled whole, compared with its digest.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

use crate::connection::Connection;
use crate::process::{Process, memory};
use crate::report::Table;
use crate::target::Target;

/// The layer is this many random bytes again and again, and a few of its own: no registry looks for equal parts.
const BLOCK: usize = 64 * 1024 * 1024;
const REPOSITORY: &str = "local/scale/layer";
const OCTETS: &str = "application/octet-stream";

/// Pushes and pulls it; memory of the server while that goes on.
pub fn measure(server: &Process, target: &Target, gibibytes: usize) -> anyhow::Result<Table> {
    let mut block = vec![0; BLOCK];
    getrandom::fill(&mut block).map_err(std::io::Error::from)?;
    let tail = b"the end of a very large layer";
    let repeated = gibibytes * (1 << 30) / BLOCK;
    let mut hash = Sha256::new();
    let mut pieces: Vec<&[u8]> = Vec::with_capacity(repeated + 1);
    for _ in 0..repeated {
        hash.update(&block);
        pieces.push(&block);
    }
    hash.update(tail);
    pieces.push(tail);
    let digest = digest_of(hash);

    let mut table = Table::new(
        format!("a layer of {gibibytes} GiB"),
        &["MB/s", "idle MB", "peak MB", "over idle", "anon. after"],
    );
    let idle = memory(server.id()).context("the server is gone")?.resident;
    let mut row = |name: &str, bytes: u64, began: Instant| -> anyhow::Result<()> {
        let rate = bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
        let now = memory(server.id()).context("the server is gone")?;
        let figures =
            vec![Some(rate), Some(idle), Some(now.peak), Some(now.peak - idle), Some(now.anonymous)];
        table.row(name, figures);
        Ok(())
    };
    let size: usize = pieces.iter().map(|piece| piece.len()).sum();

    let mut connection = Connection::open(target)?;
    let began = Instant::now();
    let line = format!("POST /v2/{REPOSITORY}/blobs/uploads/");
    let upload = connection.send(&line, OCTETS, &[])?.expect(202, "the start of an upload")?;
    let location = upload.location.context("the upload has no location")?;
    let sent = connection.send(&format!("PATCH {location}"), OCTETS, &pieces)?.expect(202, "PATCH")?;
    let location = sent.location.context("the upload has no location")?;
    let mark = if location.contains('?') { '&' } else { '?' };
    let line = format!("PUT {location}{mark}digest={digest}");
    connection.send(&line, OCTETS, &[])?.expect(201, "PUT of the layer")?;
    row("pushed, durable", size as u64, began)?;

    let mut hash = Sha256::new();
    let began = Instant::now();
    let line = format!("GET /v2/{REPOSITORY}/blobs/{digest}");
    let answer = connection.fetch(&line, &mut |bytes| hash.update(bytes))?.expect(200, "GET of the layer")?;
    ensure!(digest_of(hash) == digest, "the server gave other bytes than were pushed");
    row("pulled and compared by the client", answer.length, began)?;
    Ok(table)
}

fn digest_of(hash: Sha256) -> String {
    let hex: Vec<String> = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}
