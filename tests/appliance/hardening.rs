//! Clients that are slow, greedy or lie, over plain HTTP, TLS and HTTP/2; each time others are still answered.

// The numbers of the protocol stand beside what is done with them.
#![allow(clippy::items_after_statements)]

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::support::{PATIENCE, Server};
use super::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GO_AWAY, HEADERS, Http2, PING, RST_STREAM, SETTINGS,
    Way, Wire, ask, connect, connect_from, head, others_are_served, tcp_from, to_the_end,
};

/// Short limits, so that nobody waits for the real ones.
const HEADER: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_millis(1_600);
const STALL: Duration = Duration::from_secs(1);

fn start(way: Way, further: &[(&'static str, &'static str)]) -> Server {
    let mut environment = vec![
        way.setting(),
        ("PANTRY_LIMITS_HEADER_TIMEOUT_MS", "400"),
        ("PANTRY_LIMITS_HANDSHAKE_TIMEOUT_MS", "400"),
        ("PANTRY_LIMITS_IDLE_TIMEOUT_MS", "1600"),
        ("PANTRY_LIMITS_STALL_TIMEOUT_MS", "1000"),
    ];
    environment.extend(further);
    Server::start_with(&environment)
}

/// One answer without a body that is of interest, on a connection that stays open: its head.
fn head_of(wire: &mut dyn Wire) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        wire.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Pushes a blob of that many bytes and gives its path.
fn blob(server: &Server, size: usize) -> String {
    let content: Vec<u8> = (0..size).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
    let digest = pantry::names::Digest::of(&content);
    let mut wire = connect(server);
    let head = format!(
        "POST /v2/local/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {size}\r\n\r\n"
    );
    wire.write_all(head.as_bytes()).unwrap();
    wire.write_all(&content).unwrap();
    wire.flush().unwrap();
    let told = to_the_end(wire.as_mut());
    assert!(told.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&told));
    format!("/v2/local/a/blobs/{digest}")
}

/// Begins an upload and gives its path.
fn upload(server: &Server) -> String {
    let told = ask(
        server,
        "POST /v2/local/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    let location = told.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    location.split_once("/v2/").map(|(_, rest)| format!("/v2/{}", rest.trim())).unwrap()
}

#[test]
fn a_header_that_does_not_end_is_cut() {
    for way in Way::BOTH {
        let server = start(way, &[]);
        let mut slow = connect(&server);
        slow.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
        slow.flush().unwrap();
        let mut silent = connect(&server);
        others_are_served(&server);
        let began = Instant::now();
        assert!(!to_the_end(slow.as_mut()).starts_with(b"HTTP/1.1 200"), "{way:?}");
        to_the_end(silent.as_mut());
        assert!(began.elapsed() < HEADER * 10, "{way:?}: {:?}", began.elapsed());
    }
}

#[test]
fn an_idle_connection_is_kept_for_the_idle_time_and_no_longer() {
    for way in Way::BOTH {
        let server = start(way, &[]);
        let mut idle = connect(&server);
        for _ in 0..2 {
            idle.write_all(b"HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            idle.flush().unwrap();
            assert!(head_of(idle.as_mut()).starts_with("HTTP/1.1 200"));
            // Longer than a header may take, shorter than a connection may be idle.
            std::thread::sleep(HEADER * 2);
        }
        others_are_served(&server);
        let began = Instant::now();
        to_the_end(idle.as_mut());
        assert!(began.elapsed() < IDLE * 10, "{way:?}: {:?}", began.elapsed());
    }
    let server = start(Way::Tls, &[]);
    let mut idle = Http2::connect(&server, &[]);
    let began = Instant::now();
    assert!(idle.until(|frame| frame.kind == GO_AWAY).is_some(), "it is told goodbye");
    assert!(began.elapsed() > IDLE / 2, "{:?}", began.elapsed());
    while idle.frame().is_some() {}
    others_are_served(&server);
}

#[test]
fn a_handshake_that_does_not_end_is_cut() {
    let server = start(Way::Tls, &[]);
    for begins in [&b""[..], &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]] {
        let mut stalled = tcp_from(&server, "127.0.0.1");
        stalled.write_all(begins).unwrap();
        others_are_served(&server);
        let began = Instant::now();
        to_the_end(&mut stalled);
        assert!(began.elapsed() < HEADER * 10, "{:?}", began.elapsed());
    }
}

#[test]
fn headers_and_addresses_have_an_end() {
    for way in Way::BOTH {
        let server = start(way, &[]);
        let request = |target: &str, headers: &str| {
            ask(
                &server,
                &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"),
            )
        };
        let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
        assert!(request("/v2/", &many).starts_with("HTTP/1.1 431"), "{way:?}");
        let long = format!("X-Long: {}\r\n", "y".repeat(70_000));
        assert!(request("/v2/", &long).starts_with("HTTP/1.1 431"), "{way:?}");
        for length in [20_000, 66_000] {
            let told = request(&format!("/v2/?{}", "y".repeat(length)), "");
            assert!(told.starts_with("HTTP/1.1 414") || told.starts_with("HTTP/1.1 431"), "{way:?} {told}");
        }
        assert!(request("/v2/", "").starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn a_request_whose_end_is_unclear_is_refused() {
    for way in Way::BOTH {
        let server = start(way, &[]);
        let hidden = "GET /hidden HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        for headers in [
            "Content-Length: 4\r\nContent-Length: 5\r\n",
            "Content-Length: +4\r\n",
            "Content-Length: 4, 5\r\n",
            "Content-Length: 0x4\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
        ] {
            let told = ask(
                &server,
                &format!(
                    "POST /v2/local/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n0\r\n\r\n{hidden}"
                ),
            );
            assert!(told.starts_with("HTTP/1.1 400"), "{way:?} {headers}: {told}");
            assert_eq!(told.matches("HTTP/1.1").count(), 1, "{way:?} {headers}: {told}");
        }
        // Where both are given the chunks count (RFC 9112, section 6.3), so what a length would have hidden is body.
        let told = ask(
            &server,
            &format!(
                "POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\
                 Connection: close\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
                hidden.len()
            ),
        );
        assert_eq!(told.matches("HTTP/1.1").count(), 1, "{way:?}: {told}");
        others_are_served(&server);
    }
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut_and_who_is_slow_is_not() {
    const SIZE: usize = 48 << 20;
    for way in Way::BOTH {
        let server = start(way, &[]);
        let path = blob(&server, SIZE);
        let get = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut greedy = connect(&server);
        greedy.write_all(get.as_bytes()).unwrap();
        greedy.flush().unwrap();
        let mut steady = connect(&server);
        steady.write_all(get.as_bytes()).unwrap();
        steady.flush().unwrap();
        others_are_served(&server);
        // Takes a little, many times longer than the window.
        // The kernel tells that there is room only once a third of its buffer is free, so it is a little each time, not a byte.
        let (began, mut taken, mut piece) = (Instant::now(), 0, vec![0; 512 * 1024]);
        while began.elapsed() < STALL * 3 {
            steady.read_exact(&mut piece).unwrap();
            taken += piece.len();
            std::thread::sleep(STALL / 20);
        }
        taken += to_the_end(steady.as_mut()).len();
        assert!(taken > SIZE, "{way:?}: {taken}");
        let taken = to_the_end(greedy.as_mut()).len();
        assert!(taken < SIZE, "{way:?}: {taken} bytes came though nobody took them for {STALL:?}");
    }
}

#[test]
fn a_stream_that_nobody_reads_is_reset_and_its_connection_lives_on() {
    let server = start(Way::Tls, &[("PANTRY_LIMITS_IDLE_TIMEOUT_MS", "60000")]);
    let path = blob(&server, 1 << 20);
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let mut client = Http2::connect(&server, &[(INITIAL_WINDOW_SIZE, 1)]);
    for stream in [1, 3, 5] {
        client.get(stream, &path).unwrap();
    }
    others_are_served(&server);
    for _ in 0..3 {
        assert!(client.until(|frame| frame.kind == RST_STREAM).is_some());
    }
    client.send(PING, 0, 0, b"pantry!!").unwrap();
    assert!(client.until(|frame| frame.kind == PING && frame.flags & ACK != 0).is_some());
}

#[test]
fn who_sends_nothing_of_a_body_is_cut_and_who_is_slow_is_not() {
    for way in Way::BOTH {
        let server = start(way, &[]);
        let begin = |path: &str| {
            let mut wire = connect(&server);
            let head = format!(
                "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            wire.write_all(head.as_bytes()).unwrap();
            wire.write_all(b"1\r\nx\r\n").unwrap();
            wire.flush().unwrap();
            wire
        };
        let (stalled, steady) = (upload(&server), upload(&server));
        let mut stalled = begin(&stalled);
        let mut steady = begin(&steady);
        let began = Instant::now();
        while began.elapsed() < STALL * 4 {
            let chunk = format!("800\r\n{}\r\n", "y".repeat(2048));
            steady.write_all(chunk.as_bytes()).unwrap();
            steady.flush().unwrap();
            std::thread::sleep(STALL / 5);
        }
        others_are_served(&server);
        steady.write_all(b"0\r\n\r\n").unwrap();
        steady.flush().unwrap();
        let told = to_the_end(steady.as_mut());
        assert!(told.starts_with(b"HTTP/1.1 202"), "{way:?} {}", String::from_utf8_lossy(&told));
        let told = to_the_end(stalled.as_mut());
        assert!(!told.starts_with(b"HTTP/1.1 2"), "{way:?} {}", String::from_utf8_lossy(&told));
    }
}

#[test]
fn one_address_has_its_share_and_others_theirs() {
    for way in Way::BOTH {
        let server = start(
            way,
            &[("PANTRY_LIMITS_PER_ADDRESS_CONNECTIONS", "3"), ("PANTRY_LIMITS_STALL_TIMEOUT_MS", "60000")],
        );
        let uploads: Vec<String> = (0..3).map(|_| upload(&server)).collect();
        let mut at_work: Vec<Box<dyn Wire>> = Vec::new();
        for path in &uploads {
            let mut wire = connect(&server);
            let head = format!(
                "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            );
            wire.write_all(head.as_bytes()).unwrap();
            wire.flush().unwrap();
            // Said when the body is waited for: from here on it is at work.
            assert!(head_of(wire.as_mut()).starts_with("HTTP/1.1 100"));
            wire.write_all(b"a").unwrap();
            wire.flush().unwrap();
            at_work.push(wire);
        }
        // A fourth of the same address is closed without a word once the three are at work.
        let began = Instant::now();
        loop {
            let mut fourth = tcp_from(&server, "127.0.0.1");
            let _ = fourth.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
            if to_the_end(&mut fourth).is_empty() {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{way:?}: a fourth is always answered");
        }
        others_are_served(&server);
        let mut other = connect_from(&server, "127.0.0.2");
        other.write_all(b"HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        other.flush().unwrap();
        assert!(head_of(other.as_mut()).starts_with("HTTP/1.1 200"));
        for mut wire in at_work {
            wire.write_all(b"b").unwrap();
            wire.flush().unwrap();
            assert!(head_of(wire.as_mut()).starts_with("HTTP/1.1 202"), "{way:?}: work under way goes on");
        }
    }
}

#[test]
fn streams_beyond_the_cap_are_refused() {
    let server =
        start(Way::Tls, &[("PANTRY_LIMITS_STREAMS", "8"), ("PANTRY_LIMITS_STALL_TIMEOUT_MS", "60000")]);
    let path = blob(&server, 1 << 20);
    const MAX_CONCURRENT_STREAMS: [u8; 6] = [0, 3, 0, 0, 0, 8];
    let mut client = Http2::connect(&server, &[(4, 1)]);
    let settings = client.until(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).unwrap();
    assert!(settings.payload.chunks(6).any(|setting| setting == MAX_CONCURRENT_STREAMS), "{settings:?}");
    for stream in 0..9 {
        client.get(stream * 2 + 1, &path).unwrap();
    }
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let refused = client.until(|frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!((refused.stream, refused.payload.as_slice()), (17, &REFUSED_STREAM[..]));
    others_are_served(&server);
}

/// Sends such frames until the server ends the connection; it must do so before they have all been sent.
fn flood(
    server: &Server,
    what: &str,
    most: u32,
    mut send: impl FnMut(&mut Http2, u32) -> std::io::Result<()>,
) {
    let before = memory_kib(server);
    let mut client = Http2::connect(server, &[]);
    let mut sent = 0;
    while sent < most && send(&mut client, sent).is_ok() {
        sent += 1;
        if sent % 1_000 == 0 {
            others_are_served(server);
        }
    }
    let ended = client.until(|frame| frame.kind == GO_AWAY && frame.payload[4..8] != [0; 4]);
    assert!(sent < most || ended.is_some(), "{what}: {sent} frames were taken");
    others_are_served(server);
    let grown = memory_kib(server).saturating_sub(before);
    assert!(grown < 32 * 1024, "{what}: memory grew by {grown} KiB");
}

fn memory_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How many requests were answered, as their heads were made.
fn answered(server: &Server) -> u64 {
    let mut wire = connect_from(server, "127.0.0.9");
    wire.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    wire.flush().unwrap();
    let told = String::from_utf8(to_the_end(wire.as_mut())).unwrap();
    let lines = told.lines().filter(|line| line.starts_with("pantry_http_requests_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn streams_that_nobody_reads_hold_little_memory_and_others_are_served() {
    const CONNECTIONS: u64 = 16;
    const STREAMS: u64 = 64;
    const SIZE: usize = 8 << 20;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const WINDOW_UPDATE: u8 = 8;
    // What the streams share, and what each has for itself: its piece, its request and its place.
    const SHARED_KIB: u64 = 64 * 1_024;
    const OF_ONE_KIB: u64 = 16 + 32;
    // Windows that are shut, and windows that never are while nobody reads the connection.
    for (window, shared) in [(1, 0), (u32::MAX >> 1, SHARED_KIB)] {
        let server = start(
            Way::Tls,
            &[
                ("PANTRY_LIMITS_CONNECTIONS", "32"),
                ("PANTRY_LIMITS_STALL_TIMEOUT_MS", "60000"),
                ("PANTRY_LIMITS_IDLE_TIMEOUT_MS", "60000"),
            ],
        );
        let path = blob(&server, SIZE);
        let (before, begun) = (memory_kib(&server), answered(&server));
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = Http2::connect(&server, &[(INITIAL_WINDOW_SIZE, window)]);
            if window > 1 {
                client.send(WINDOW_UPDATE, 0, 0, &(window - 65_535).to_be_bytes()).unwrap();
            }
            for stream in 0..STREAMS {
                client.get(u32::try_from(stream * 2 + 1).unwrap(), &path).unwrap();
            }
            clients.push(client);
        }
        let began = Instant::now();
        while answered(&server) - begun < CONNECTIONS * STREAMS {
            assert!(began.elapsed() < PATIENCE, "they are not all answered");
            std::thread::sleep(Duration::from_millis(50));
        }
        // All of another client's is there, and in the time that it takes everybody has what they may have.
        let mut other = connect_from(&server, "127.0.0.9");
        let get = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        other.write_all(get.as_bytes()).unwrap();
        other.flush().unwrap();
        assert!(to_the_end(other.as_mut()).len() > SIZE);
        others_are_served(&server);
        let grown = memory_kib(&server).saturating_sub(before);
        let bound = shared + CONNECTIONS * STREAMS * OF_ONE_KIB;
        println!("windows of {window}: memory grew by {grown} KiB, of {bound}");
        assert!(grown < bound, "windows of {window}: memory grew by {grown} KiB, more than {bound}");
        drop(clients);
    }
}

#[test]
fn one_address_has_its_part_of_the_memory_for_manifests_and_others_theirs() {
    const SIZE: usize = 1 << 20;
    let server = start(Way::Plain, &[("PANTRY_LIMITS_STALL_TIMEOUT_MS", "60000")]);
    let put = |source: &str, size: usize, sent: usize| {
        let mut wire = connect_from(&server, source);
        let head = format!(
            "PUT /v2/local/a/manifests/t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {size}\r\n\r\n"
        );
        wire.write_all(head.as_bytes()).unwrap();
        wire.write_all(&vec![b'x'; sent]).unwrap();
        wire.flush().unwrap();
        wire
    };
    let status = |source: &str| {
        let mut wire = put(source, SIZE * 2, SIZE * 2);
        let told = to_the_end(wire.as_mut());
        String::from_utf8_lossy(&told[9..12]).into_owned()
    };
    let mut stalled = Vec::new();
    while status("127.0.0.1") != "429" {
        assert!(stalled.len() < 40, "the address never has its part");
        stalled.push(put("127.0.0.1", SIZE, SIZE - 1));
    }
    assert_eq!(status("127.0.0.2"), "400", "it is read, and is no manifest");
}

#[test]
fn a_flood_of_resets_ends_its_connection() {
    let server = start(Way::Tls, &[]);
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    flood(&server, "resets", 20_000, |client, n| {
        let stream = n * 2 + 1;
        client.queue(HEADERS, END_HEADERS | END_STREAM, stream, &head("/v2/"))?;
        client.send(RST_STREAM, 0, stream, &CANCEL)
    });
    // The same, where it is made to reset them by itself: a window update of nothing is an error of its stream.
    const WINDOW_UPDATE: u8 = 8;
    flood(&server, "errors", 20_000, |client, n| {
        let stream = n * 2 + 1;
        client.queue(HEADERS, END_HEADERS, stream, &head("/v2/"))?;
        client.send(WINDOW_UPDATE, 0, stream, &[0; 4])
    });
}

#[test]
fn a_flood_of_continuations_ends_its_connection() {
    let server = start(Way::Tls, &[]);
    flood(&server, "continuations", 20_000, |client, n| {
        // A literal header with a new name, not indexed: `x: y`.
        let piece = [0, 1, b'x', 1, b'y'];
        match n {
            0 => client.send(HEADERS, END_STREAM, 1, &head("/v2/")),
            _ => client.send(CONTINUATION, 0, 1, &piece),
        }
    });
}

#[test]
fn headers_that_unpack_to_more_than_they_may_are_refused() {
    let server = start(Way::Tls, &[]);
    let mut client = Http2::connect(&server, &[]);
    let mut block = head("/v2/");
    // `x: yyyy…` of 4,000 bytes goes into the table once, and is then named by one byte for each time.
    block.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend_from_slice(&[b'y'; 4_000]);
    block.extend_from_slice(&[0xbe; 10_000]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block).unwrap();
    // :status 431 is literal; 0x88 would be the 200 of the static table.
    let answer = client.until(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GO_AWAY)).unwrap();
    let refused = answer.kind != HEADERS || !answer.payload.contains(&0x88);
    assert!(refused, "{answer:?}");
    others_are_served(&server);
}

#[test]
fn a_flood_of_pings_and_settings_holds_no_memory() {
    let server = start(Way::Tls, &[]);
    let before = memory_kib(&server);
    for (kind, payload) in [(PING, &b"12345678"[..]), (SETTINGS, &[0, 4, 0, 0, 255, 255][..])] {
        let mut client = Http2::connect(&server, &[]);
        // Nobody reads the answers; sending ends when the server takes no more, or ends it.
        for _ in 0..100_000 {
            if client.queue(kind, 0, 0, payload).is_err() {
                break;
            }
        }
        others_are_served(&server);
    }
    let grown = memory_kib(&server).saturating_sub(before);
    assert!(grown < 32 * 1024, "memory grew by {grown} KiB");
}

#[test]
fn an_answer_over_http2_comes_whole() {
    let server = start(Way::Tls, &[]);
    let path = blob(&server, 3_000_000);
    let mut client = Http2::connect(&server, &[(4, 8 << 20)]);
    client.send(8, 0, 0, &(8_u32 << 20).to_be_bytes()).unwrap();
    client.get(1, &path).unwrap();
    let mut came = 0;
    loop {
        let frame = client.frame().unwrap();
        if frame.kind == DATA {
            came += frame.payload.len();
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert_eq!(came, 3_000_000);
}
