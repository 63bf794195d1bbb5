//! Over a real socket: connections as they come, and a real client where there is one.

use super::super::accept::accept_tcp;
use super::super::connection::{Limits, Serving};
use super::super::crowd::Crowd;
use super::super::share::Part;
use super::*;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Places for connections.
const PLACES: usize = 16;

fn limits() -> Limits {
    let minute = Duration::from_mins(1);
    let part = Part { of_one: 1, of_all: 2 };
    Limits { header: minute, handshake: minute, idle: minute, stall: minute, streams: 16, part }
}

/// Serves on a free port until the token is dropped.
async fn serve(world: &World, header_timeout: Duration) -> (std::net::SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closing = CancellationToken::new();
    let serving = Serving {
        router: world.router.clone(),
        limits: Limits { header: header_timeout, ..limits() },
        closing: closing.clone(),
        ending: CancellationToken::new(),
    };
    tokio::spawn(accept_tcp(listener, None, serving, Crowd::new(PLACES, PLACES / 2), TaskTracker::new()));
    (address, closing)
}

/// Everything that comes until the other end closes.
async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_client_that_never_ends_its_headers_is_left() {
    let world = World::new().await;
    let (address, _closing) = serve(&world, Duration::from_millis(200)).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
    let told = to_the_end(&mut slow).await;
    assert!(told.is_empty() || told.contains("408"), "{told}");
    let mut next = TcpStream::connect(address).await.unwrap();
    next.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(to_the_end(&mut next).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_that_ask_for_nothing_keep_nobody_out() {
    let world = World::new().await;
    let (address, _closing) = serve(&world, Duration::from_mins(1)).await;
    let begun = world.send(Method::POST, "/v2/local/app/blobs/uploads/", &[], Body::empty()).await;
    let location = begun.is(202).header("location").to_owned();
    // One at work among those that are idle or in the middle of their headers.
    let mut at_work = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab"
    );
    at_work.write_all(head.as_bytes()).await.unwrap();
    let came = async || world.get(&location).await.header("range") == "0-1";
    while !came().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut idle = Vec::new();
    for _ in 0..4 * PLACES {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if idle.len() % 2 == 0 {
            stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: ").await.unwrap();
        }
        idle.push(stream);
    }
    let ask = async {
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        to_the_end(&mut next).await
    };
    let told = tokio::time::timeout(Duration::from_secs(10), ask).await.expect("it is answered soon");
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    at_work.write_all(b"cd").await.unwrap();
    let told = to_the_end(&mut at_work).await;
    assert!(told.starts_with("HTTP/1.1 202"), "{told}");
}

#[tokio::test]
async fn closing_ends_idle_connections_at_once() {
    let world = World::new().await;
    let (address, closing) = serve(&world, Duration::from_secs(30)).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    closing.cancel();
    to_the_end(&mut idle).await;
}

#[tokio::test]
async fn a_push_that_is_cut_off_leaves_nothing() {
    let world = World::new().await;
    let (address, _closing) = serve(&world, Duration::from_secs(30)).await;
    let content = noise(9, 400_000);
    let digest = Digest::of(&content);
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v2/local/app/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400000\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&content[..300_000]).await.unwrap();
    // The file is there once enough has come; then the client leaves.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    client.shutdown().await.unwrap();
    to_the_end(&mut client).await;
    while world.uploads() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "an unfinished upload stayed behind");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.head(&format!("/v2/local/app/blobs/{digest}")).await.is(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_pushes_and_pulls() {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("skopeo").is_file()));
    if !found {
        #[allow(clippy::print_stdout, reason = "a test that can't run here says why")]
        {
            println!("skipped: skopeo is not installed");
        }
        return;
    }
    let world = World::new().await;
    let (address, _closing) = serve(&world, Duration::from_secs(30)).await;
    let work = tempfile::tempdir().unwrap();
    let layer = noise(11, 5 << 20);
    write_layout(&work.path().join("in"), &layer);
    let copy = async |arguments: &[String]| {
        let output = tokio::process::Command::new("skopeo")
            .args(["copy", "--insecure-policy", "--preserve-digests"])
            .args(arguments)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let there = format!("docker://{address}/local/app:1.0");
    let from = format!("oci:{}", work.path().join("in").display());
    copy(&["--dest-tls-verify=false".into(), from, there.clone()]).await;
    let back = format!("oci:{}", work.path().join("out").display());
    copy(&["--src-tls-verify=false".into(), there, back]).await;
    let name = Digest::of(&layer);
    let pulled = fs_err::read(work.path().join("out/blobs/sha256").join(name.hex())).unwrap();
    assert!(pulled == layer, "what came back is not what was sent");
}

/// An OCI layout of one image with one uncompressed layer.
fn write_layout(folder: &std::path::Path, layer: &[u8]) {
    let blobs = folder.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).unwrap();
    let put = |content: &[u8]| fs_err::write(blobs.join(Digest::of(content).hex()), content).unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer)]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
    .to_string();
    put(layer);
    put(config.as_bytes());
    put(manifest.as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(IMAGE, manifest.as_bytes())]});
    fs_err::write(folder.join("index.json"), index.to_string()).unwrap();
    fs_err::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
