//! Many tags and many images, made by requests.

use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};

use crate::connection::Connection;
use crate::target::Target;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The image that has all the tags.
const IMAGE: &str = "local/scale/tags";
/// So many tags are set by one request; each request brings a manifest of its own.
const TOGETHER: usize = 100;
/// So many requests at a time share commits.
const CONNECTIONS: usize = 16;

/// Goes on from `before` tags, and a tenth of that in images, to `after`.
pub fn fill(target: &Target, before: usize, after: usize) -> anyhow::Result<()> {
    let tags = |connection: &mut Connection, turn: usize| {
        let first = before + turn * TOGETHER;
        let manifest = manifest(first);
        let digest = digest_of(&manifest);
        let query: Vec<String> =
            (first..(first + TOGETHER).min(after)).map(|number| format!("tag={}", tag(number))).collect();
        let line = format!("PUT /v2/{IMAGE}/manifests/{digest}?{}", query.join("&"));
        connection.send(&line, INDEX, &[manifest.as_bytes()])?.expect(201, "PUT of a manifest with tags")?;
        Ok(())
    };
    together(target, (after - before).div_ceil(TOGETHER), tags)?;
    let images = |connection: &mut Connection, turn: usize| {
        let line = format!("PUT /v2/{}/manifests/latest", image(before / 10 + turn));
        let manifest = manifest(0);
        connection.send(&line, INDEX, &[manifest.as_bytes()])?.expect(201, "PUT of a manifest")?;
        Ok(())
    };
    together(target, (after - before) / 10, images)
}

/// The pages that are asked for with so many tags, and what they are.
pub fn pages(tags: usize) -> Vec<(&'static str, String)> {
    let (middle, images) = (tag(tags / 2), image(tags / 20));
    vec![
        ("tags, first page", format!("/v2/{IMAGE}/tags/list?n=100")),
        ("tags, from the middle", format!("/v2/{IMAGE}/tags/list?n=100&last={middle}")),
        ("tags, one before the end", format!("/v2/{IMAGE}/tags/list?n=100&last={}", tag(tags - 101))),
        ("catalogue, first page (of 40)", "/v2/_catalog?n=40".to_owned()),
        ("catalogue, from the middle", format!("/v2/_catalog?n=40&last={images}")),
    ]
}

fn tag(number: usize) -> String {
    format!("v{number:07}")
}

fn image(number: usize) -> String {
    format!("local/scale/image-{number:06}")
}

/// An index without members, which needs no blob.
fn manifest(number: usize) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[],"annotations":{{"n":"{number}"}}}}"#)
}

fn digest_of(text: &str) -> String {
    let hex: Vec<String> = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// So many turns, taken by several connections.
fn together(
    target: &Target,
    turns: usize,
    act: impl Fn(&mut Connection, usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(target)?;
                    loop {
                        let turn = taken.fetch_add(1, Ordering::Relaxed);
                        if turn >= turns {
                            return Ok(());
                        }
                        act(&mut connection, turn)?;
                    }
                })
            })
            .collect();
        handles.into_iter().try_for_each(|handle| match handle.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
