//! Uploads in the ways that clients choose, gone on with after the server died in between where it can be.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use reqwest::Method;

use super::random::Dice;
use super::wire::{Ask, Wire};

const OCTETS: &str = "application/octet-stream";

/// Uploads until it is acknowledged; gives the time at which the request that was acknowledged went out.
pub fn upload(
    wire: &mut Wire<'_>,
    dice: &mut Dice,
    repository: &str,
    bytes: &Bytes,
    digest: &str,
) -> anyhow::Result<Instant> {
    loop {
        let asked = if dice.one_in(4) {
            at_once(wire, repository, bytes, digest)?
        } else {
            in_parts(wire, dice, repository, bytes, digest)?
        };
        if let Some(asked) = asked {
            return Ok(asked);
        }
    }
}

/// POST with everything; `None` when the server died meanwhile.
fn at_once(
    wire: &mut Wire<'_>,
    repository: &str,
    bytes: &Bytes,
    digest: &str,
) -> anyhow::Result<Option<Instant>> {
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let ask = Ask::new(Method::POST, path).header("content-type", OCTETS).body(bytes.clone());
    let Some(answer) = wire.once(&ask)? else { return Ok(None) };
    let answer = answer.expect(&[201], "POST of a whole blob")?;
    ensure!(answer.header("docker-content-digest") == Some(digest), "the server names another digest");
    Ok(Some(answer.asked))
}

/// POST, a few times PATCH, PUT with or without the rest; `None` when the upload was lost.
fn in_parts(
    wire: &mut Wire<'_>,
    dice: &mut Dice,
    repository: &str,
    bytes: &Bytes,
    digest: &str,
) -> anyhow::Result<Option<Instant>> {
    // The algorithm is said at the beginning, or comes up only with the name at the end.
    let hint = if digest.starts_with("sha512:") && dice.one_in(2) { "?digest-algorithm=sha512" } else { "" };
    let path = format!("/v2/{repository}/blobs/uploads/{hint}");
    let Some(begun) = wire.once(&Ask::new(Method::POST, path))? else {
        return Ok(None);
    };
    let begun = begun.expect(&[202], "the start of an upload")?;
    let born = begun.life;
    let mut location = begun.header("location").context("the upload has no location")?.to_owned();
    if dice.one_in(20) {
        cancel(wire, &location)?;
        return Ok(None);
    }
    let mut sent = 0;
    let parts = usize::try_from(dice.below(4)).unwrap_or_default();
    for part in 0..parts {
        let end =
            if part + 1 == parts && dice.one_in(2) { bytes.len() } else { sent + (bytes.len() - sent) / 2 };
        if end == sent {
            continue;
        }
        let mut ask =
            Ask::new(Method::PATCH, &location).header("content-type", OCTETS).body(bytes.slice(sent..end));
        if dice.one_in(2) {
            ask = ask.header("content-range", format!("{sent}-{}", end - 1));
        }
        let answer = wire.once(&ask)?;
        if let Some(answer) = answer {
            // An upload of a life before is continued where it stood, or unknown.
            let allowed: &[u16] = if answer.life == born { &[202] } else { &[202, 404, 416] };
            let answer = answer.expect(allowed, "PATCH")?;
            match answer.status {
                202 => {
                    answer
                        .header("location")
                        .context("the upload has no location")?
                        .clone_into(&mut location);
                    sent = end;
                    continue;
                }
                404 => return Ok(None),
                _ => {}
            }
        }
        match standing(wire, &location)? {
            Some(received) if received <= bytes.len() => sent = received,
            _ => return Ok(None),
        }
    }
    let mark = if location.contains('?') { '&' } else { '?' };
    let mut ask = Ask::new(Method::PUT, format!("{location}{mark}digest={digest}"));
    if sent < bytes.len() {
        ask = ask.header("content-type", OCTETS).body(bytes.slice(sent..));
        if dice.one_in(2) {
            ask = ask.header("content-range", format!("{sent}-{}", bytes.len() - 1));
        }
    }
    let Some(answer) = wire.once(&ask)? else {
        // Done or not: what is left of it is not needed.
        cancel(wire, &location)?;
        return Ok(None);
    };
    // Only an upload of a life before may be unknown, or shorter than was acknowledged.
    let allowed: &[u16] = if answer.life == born { &[201] } else { &[201, 400, 404, 416] };
    let answer = answer.expect(allowed, "PUT of a blob")?;
    if answer.status == 201 {
        ensure!(answer.header("docker-content-digest") == Some(digest), "the server names another digest");
        return Ok(Some(answer.asked));
    }
    cancel(wire, &location)?;
    Ok(None)
}

/// How many bytes the server has of an upload; `None` when it knows none, or when that cannot be told from one byte.
fn standing(wire: &mut Wire<'_>, location: &str) -> anyhow::Result<Option<usize>> {
    let answer = wire.until_answered(&Ask::new(Method::GET, location))?;
    let answer = answer.expect(&[204, 404], "the status of an upload")?;
    if answer.status == 404 {
        return Ok(None);
    }
    let range = answer.header("range").context("the status of an upload has no range")?;
    let last: usize = range.strip_prefix("0-").context("the range does not begin at 0")?.parse()?;
    if last == 0 {
        cancel(wire, location)?;
        return Ok(None);
    }
    Ok(Some(last + 1))
}

/// Ends an upload, if it is there.
pub fn cancel(wire: &mut Wire<'_>, location: &str) -> anyhow::Result<()> {
    wire.until_answered(&Ask::new(Method::DELETE, location))?.expect(&[204, 404], "the end of an upload")?;
    Ok(())
}
