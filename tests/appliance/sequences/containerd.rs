//! containerd from 2.1 on (2.4.2 was watched), with `max_concurrent_downloads` and `concurrent_layer_fetch_buffer` set:
//! every request that fetches has an open end, and is dropped when its share is there.

// The numbers of the protocol stand beside what is done with them.
#![allow(clippy::items_after_statements)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::support::until;
use super::super::wire::{ACK, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PING, RST_STREAM};
use super::*;

const AGENT: &str = "containerd/2.4.2+unknown";
const LAYER: usize = 24 << 20;
const SHARE: usize = 1 << 20;

/// How many requests one pull has under way.
const AT_ONCE: usize = 12;

/// What containerd takes as an answer to its first question.
const RESOLVE: (&str, &str) = (
    "Accept",
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*",
);

/// What it sends with all that it fetches.
const CODINGS: (&str, &str) = ("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5");

/// What the server has open.
fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

fn memory_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Asks for everything from an offset on; the answer's head, checked as containerd does.
fn open_at(client: &Client<'_>, wire: &mut dyn Wire, path: &str, kind: &str, offset: usize, size: usize) {
    let (accept, range) = (format!("{kind}, */*"), format!("bytes={offset}-"));
    client
        .send(wire, "GET", path, &[("Accept", &accept), CODINGS, ("Range", &range)], Body::Nothing)
        .unwrap();
    let answer = read_head(wire);
    assert_eq!(answer.status, 206, "{answer:?}");
    assert_eq!(answer.header("content-range"), format!("bytes {offset}-{}/{size}", size - 1));
    assert_eq!(answer.header("content-length"), (size - offset).to_string());
    // What is coded otherwise is counted in bytes that no descriptor tells of.
    assert!(!answer.has("content-encoding"), "{answer:?}");
}

/// The same, and all that follows.
fn fetch(client: &Client<'_>, path: &str, kind: &str, size: usize) -> Vec<u8> {
    let mut wire = connect(client.server);
    open_at(client, wire.as_mut(), path, kind, 0, size);
    let mut all = vec![0; size];
    wire.read_exact(&mut all).unwrap();
    all
}

#[test]
fn containerd_drops_many_open_ranges() {
    let server = private(Way::Plain);
    let layer = bytes(21, LAYER);
    let manifest = push_image(&server, "fetched", &[&layer]);
    let mut client = Client::new(&server, AGENT);

    // A HEAD tells the digest; the token comes by a form, and a second HEAD is answered.
    let tag = format!("/v2/{REPOSITORY}/manifests/fetched");
    let challenge = Challenge::of(&client.head(&tag, &[RESOLVE]));
    assert_eq!(challenge.scope.as_deref(), Some("repository:local/private:pull"));
    client.token_by_post(
        &challenge,
        &format!(
            "client_id=containerd-client&grant_type=password&password={}&scope={}&service={}&username=ada",
            PASSWORD.replace(' ', "+"),
            scope(REPOSITORY, "pull"),
            challenge.service
        ),
    );
    let resolved = client.head(&tag, &[RESOLVE]);
    assert_eq!((resolved.status, resolved.header("content-type")), (200, IMAGE));
    assert_eq!(resolved.header("docker-content-digest"), digest(&manifest));
    assert_eq!(resolved.header("content-length"), manifest.len().to_string());

    // The manifest and the configuration are asked for as the layers are.
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{}", digest(&manifest));
    assert_eq!(fetch(&client, &by_digest, IMAGE, manifest.len()), manifest);
    let config = format!("/v2/{REPOSITORY}/blobs/{}", digest(b"{}"));
    assert_eq!(fetch(&client, &config, "application/vnd.oci.image.config.v1+json", 2), b"{}");

    let path = format!("/v2/{REPOSITORY}/blobs/{}", digest(&layer));
    let token = client.authorization.take();
    let pull = || {
        let pieces = std::sync::Mutex::new(BTreeMap::new());
        let offsets = std::sync::Mutex::new((0..LAYER).step_by(SHARE));
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    let client = Client { authorization: token.clone(), ..Client::new(&server, AGENT) };
                    loop {
                        let Some(offset) = offsets.lock().unwrap().next() else { return };
                        let mut wire = connect(&server);
                        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
                        open_at(&client, wire.as_mut(), &path, kind, offset, LAYER);
                        let mut piece = vec![0; SHARE.min(LAYER - offset)];
                        wire.read_exact(&mut piece).unwrap();
                        pieces.lock().unwrap().insert(offset, piece);
                        // Dropped here, with everything up to the layer's end still to come.
                    }
                });
            }
            let began = Instant::now();
            assert_eq!(Client::new(&server, "somebody").get("/health", &[]).status, 200);
            assert!(began.elapsed() < Duration::from_secs(10), "answered after {:?}", began.elapsed());
        });
        let whole: Vec<u8> = pieces.into_inner().unwrap().into_values().flatten().collect();
        assert!(whole == layer, "the shares make the layer");
    };
    // What the first pull makes the server keep (threads, buffers) is no leak.
    pull();
    let open = descriptors(&server);
    until("the first pull's connections are gone", || descriptors(&server) <= open);
    let before = memory_bytes(&server);
    for _ in 0..4 {
        pull();
    }
    until("what was dropped is closed", || descriptors(&server) <= open);
    let grown = memory_bytes(&server).saturating_sub(before);
    assert!(grown < LAYER as u64, "memory grew by {grown} bytes");
}

/// With TLS all of a pull is in streams of one connection, and what is dropped is reset.
#[test]
fn containerd_resets_many_streams_with_open_ranges() {
    let server = private(Way::Tls);
    let layer = bytes(22, LAYER);
    push_image(&server, "streams", &[&layer]);
    let mut login = Client::new(&server, AGENT);
    let path = format!("/v2/{REPOSITORY}/blobs/{}", digest(&layer));
    let challenge = Challenge::of(&login.head(&path, &[]));
    login.token_by_get(
        &challenge,
        &format!("scope={}&service={}", scope(REPOSITORY, "pull"), challenge.service),
    );
    let token = login.authorization.take().unwrap();
    drop(login);

    // As Go's client has it: four megabytes a stream, a gigabyte for all.
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const WINDOW_UPDATE: u8 = 8;
    let mut wire = Http2::connect(&server, &[(INITIAL_WINDOW_SIZE, 4 << 20)]);
    wire.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()).unwrap();
    let open = descriptors(&server);
    let before = memory_bytes(&server);

    let mut offsets = (0..LAYER).step_by(SHARE).cycle().take(4 * LAYER / SHARE);
    let mut begun: BTreeMap<u32, (usize, Vec<u8>)> = BTreeMap::new();
    let (mut next, mut dropped) = (1, 0);
    loop {
        while begun.len() < AT_ONCE
            && let Some(offset) = offsets.next()
        {
            let block = ranged(&path, &token, offset);
            wire.send(HEADERS, END_HEADERS | END_STREAM, next, &block).unwrap();
            begun.insert(next, (offset, Vec::new()));
            next += 2;
        }
        if begun.is_empty() {
            break;
        }
        let frame = wire.frame().expect("the connection lives");
        // What was under way when its stream was reset still comes.
        let Some((offset, piece)) = begun.get_mut(&frame.stream) else { continue };
        match frame.kind {
            // `:status 206`, as the static table has it.
            HEADERS => assert_eq!(frame.payload.first(), Some(&0x8a), "{frame:?}"),
            DATA => piece.extend_from_slice(&frame.payload),
            RST_STREAM => panic!("{frame:?}"),
            _ => {}
        }
        let share = SHARE.min(LAYER - *offset);
        if piece.len() >= share {
            assert!(piece[..share] == layer[*offset..*offset + share], "the share at {offset}");
            if frame.flags & END_STREAM == 0 {
                const CANCEL: [u8; 4] = [0, 0, 0, 8];
                wire.send(RST_STREAM, 0, frame.stream, &CANCEL).unwrap();
                dropped += 1;
            }
            begun.remove(&frame.stream);
            if dropped % 16 == 0 {
                assert_eq!(Client::new(&server, "somebody").get("/health", &[]).status, 200);
            }
        }
    }
    assert!(dropped > 2 * LAYER / SHARE, "only {dropped} were dropped");
    // The connection is as good as before, and holds nothing open.
    wire.send(PING, 0, 0, b"pantry!!").unwrap();
    assert!(wire.until(|frame| frame.kind == PING && frame.flags & ACK != 0).is_some());
    until("what was reset is closed", || descriptors(&server) <= open);
    let grown = memory_bytes(&server).saturating_sub(before);
    assert!(grown < 2 * LAYER as u64, "memory grew by {grown} bytes");
}

/// The header block (RFC 7541) of a GET with a token and a range that is open at its end.
fn ranged(path: &str, token: &str, offset: usize) -> Vec<u8> {
    // `:method GET`, `:scheme https`.
    let mut block = vec![0x82, 0x87];
    // By the numbers that the static table has for the names.
    for (name, value) in [(4, path), (1, "localhost"), (23, token), (50, format!("bytes={offset}-").as_str())]
    {
        integer(&mut block, 0x00, 4, name);
        integer(&mut block, 0x00, 7, value.len());
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A number behind so many bits of a byte that has others in front (RFC 7541, section 5.1).
fn integer(block: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return block.push(first | u8::try_from(value).unwrap());
    }
    block.push(first | u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// Pushes an image with these layers as the administrator; its manifest.
fn push_image(server: &Server, tag: &str, layers: &[&[u8]]) -> Vec<u8> {
    let mut client = Client::new(server, "a test");
    client.authorization = Some(format!("Bearer {}", server.token()));
    let mut push = |bytes: &[u8], kind: &str| {
        let target = with_digest(&format!("/v2/{REPOSITORY}/blobs/uploads/"), &digest(bytes));
        let put = client.ask("POST", &target, &[OCTETS], Body::Whole(bytes));
        assert_eq!(put.status, 201, "{put:?}");
        json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
    };
    let config = push(b"{}", "application/vnd.oci.image.config.v1+json");
    let layers: Vec<_> =
        layers.iter().map(|layer| push(layer, "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers});
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let target = format!("/v2/{REPOSITORY}/manifests/{tag}");
    let put = client.ask("PUT", &target, &[("Content-Type", IMAGE)], Body::Whole(&manifest));
    assert_eq!(put.status, 201, "{put:?}");
    manifest
}
