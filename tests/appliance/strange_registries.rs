//! `pantry push`, `pull` and `login` against registries that are busy, broken, slow or hostile.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::clients::image;
use super::images::{entries, json_of, pantry, run, text};
use super::support::{digest, http, show, signal, until, wait_for};

/// A registry that answers as a test wants; one thread and connection a request.
struct Fake {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

struct Asked {
    line: String,
    headers: Vec<String>,
    stream: TcpStream,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn answer(&mut self, head: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = self.stream.write_all(head.as_bytes()).and_then(|()| self.stream.write_all(body));
    }
}

impl Fake {
    fn start(answer: impl Fn(&mut Asked) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, log) = (answer.clone(), log.clone());
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                    let Some(line) = lines.next() else { return };
                    let headers = lines.take_while(|line| !line.is_empty()).collect();
                    log.lock().unwrap().push(line.clone());
                    answer(&mut Asked { line, headers, stream });
                });
            }
        });
        Self { address, seen }
    }

    fn asked(&self, part: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }
}

/// A manifest with one layer.
fn manifest(config: &[u8], layer: (&str, usize)) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.0, "size": layer.1 }] })
    .to_string()
    .into_bytes()
}

const MANIFEST_HEAD: &str = "200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json";

#[test]
fn a_registry_that_sends_something_else_is_found_out() {
    let layer = b"what was promised".to_vec();
    let name = digest(&layer);
    for (what, body) in [
        ("wrong", b"what was delivered".to_vec()),
        ("longer", [layer.clone(), layer.clone()].concat()),
        ("shorter", layer[..5].to_vec()),
    ] {
        let (layer, name) = (layer.clone(), name.clone());
        let fake = Fake::start(move |asked| {
            if asked.line.contains("/manifests/") {
                asked.answer(MANIFEST_HEAD, &manifest(b"{}", (&name, layer.len())));
            } else if asked.line.contains(&digest(b"{}")) {
                asked.answer("200 OK", b"{}");
            } else {
                asked.answer("200 OK", &body);
            }
        });
        let folder = tempfile::tempdir().unwrap();
        for destination in ["new", "new.tar"] {
            let output = run(
                folder.path(),
                &["pull", &format!("{}/a/b:1", fake.address), text(&folder.path().join(destination))],
            );
            let expected = if what == "shorter" { 3 } else { 4 };
            assert_eq!(output.status.code(), Some(expected), "{what}: {}", show(&output));
            assert!(entries(folder.path()).is_empty(), "{what}: {:?}", entries(folder.path()));
        }
    }
}

#[test]
fn an_endless_manifest_is_not_held() {
    let fake = Fake::start(|asked| {
        let _ = asked
            .stream
            .write_all(format!("HTTP/1.1 {MANIFEST_HEAD}\r\nConnection: close\r\n\r\n").as_bytes());
        while asked.stream.write_all(&[b' '; 16_384]).is_ok() {}
    });
    let folder = tempfile::tempdir().unwrap();
    let output =
        run(folder.path(), &["pull", &format!("{}/a/b:1", fake.address), text(&folder.path().join("new"))]);
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    assert!(entries(folder.path()).is_empty());
}

#[test]
fn a_pull_that_breaks_off_is_resumed_where_it_was() {
    let layer: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let name = digest(&layer);
    for ranges in [true, false] {
        let (body, name) = (layer.clone(), name.clone());
        let broken = Mutex::new(0);
        let fake = Fake::start(move |asked| {
            if asked.line.contains("/manifests/") {
                return asked.answer(MANIFEST_HEAD, &manifest(b"{}", (&name, body.len())));
            }
            if asked.line.contains(&digest(b"{}")) {
                return asked.answer("200 OK", b"{}");
            }
            let from = asked.header("range").map(|range| {
                range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
            });
            let (status, from) = match from {
                Some(from) if ranges => (
                    format!(
                        "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
                        body.len() - 1,
                        body.len()
                    ),
                    from,
                ),
                _ => ("200 OK".to_owned(), 0),
            };
            let mut broken = broken.lock().unwrap();
            *broken += 1;
            if *broken > 2 {
                return asked.answer(&status, &body[from..]);
            }
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len() - from
            );
            asked.stream.write_all(head.as_bytes()).unwrap();
            asked.stream.write_all(&body[from..from + (body.len() - from) / 2]).unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let got = json_of(
            folder.path(),
            &["pull", &format!("{}/a/b:1", fake.address), text(&folder.path().join("new"))],
        );
        assert_eq!(got["blobs"]["transferred"], 2);
        let file = folder.path().join("new/blobs/sha256").join(digest(&layer).trim_start_matches("sha256:"));
        assert!(std::fs::read(file).unwrap() == layer);
        assert_eq!(fake.asked(&digest(&layer)), 3);
    }
}

#[test]
fn an_expired_token_is_renewed_and_shown_to_nobody_else() {
    let stranger = Fake::start(|asked| {
        let length: usize = asked.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        // What came with the head is in the reader's buffer; the rest is read away.
        let _ = asked.stream.set_read_timeout(Some(std::time::Duration::from_millis(200)));
        let _ = asked.stream.read_exact(&mut body);
        let status = if asked.header("authorization").is_some() { "400 Bad Request" } else { "201 Created" };
        asked.answer(status, b"");
    });
    let away = stranger.address.clone();
    let given = Arc::new(Mutex::new(0));
    let tokens = given.clone();
    let address = Arc::new(Mutex::new(String::new()));
    let own = address.clone();
    let fake = Fake::start(move |asked| {
        let own = own.lock().unwrap().clone();
        if asked.line.contains("/token") {
            assert!(asked.header("authorization").unwrap().starts_with("Basic "));
            let mut given = tokens.lock().unwrap();
            *given += 1;
            return asked.answer("200 OK", format!(r#"{{"token":"t{given}"}}"#).as_bytes());
        }
        // The first token is too old once an upload begins.
        let token =
            asked.header("authorization").and_then(|shown| shown.strip_prefix("Bearer t")?.parse().ok());
        if token.unwrap_or(0) < if asked.line.starts_with("POST") { 2 } else { 1 } {
            let challenge = format!(
                "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"s\""
            );
            return asked.answer(&challenge, b"{}");
        }
        match asked.line.split(' ').next() {
            Some("HEAD") => asked.answer("404 Not Found", b""),
            Some("POST") => {
                asked.answer(&format!("202 Accepted\r\nLocation: http://{away}/elsewhere?x=y"), b"");
            }
            _ => asked.answer("201 Created", b""),
        }
    });
    *address.lock().unwrap() = fake.address.clone();
    let folder = tempfile::tempdir().unwrap();
    let layout = image(folder.path());
    let mut child = pantry(folder.path())
        .args([
            "push",
            "--username",
            "ada",
            "--password-stdin",
            text(&layout),
            &format!("{}/a/b:1", fake.address),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{:?}", show(&output), fake.seen.lock().unwrap());
    assert!(*given.lock().unwrap() >= 2);
    assert_eq!(stranger.asked("PUT /elsewhere?x=y&digest=sha256"), 2, "{:?}", stranger.seen.lock().unwrap());
    assert!(fake.asked("scope=repository%3Aa%2Fb%3Apull%2Cpush") >= 2);
}

#[test]
fn a_busy_registry_is_asked_again() {
    let refusals = Mutex::new(2);
    let fake = Fake::start(move |asked| {
        let mut left = refusals.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return asked.answer("429 Too Many Requests\r\nRetry-After: 0", b"later");
        }
        asked.answer(
            "404 Not Found",
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no \u001b[31mred"}]}"#,
        );
    });
    let folder = tempfile::tempdir().unwrap();
    let output =
        run(folder.path(), &["pull", &format!("{}/a/b:1", fake.address), text(&folder.path().join("new"))]);
    assert_eq!(output.status.code(), Some(5), "{}", show(&output));
    assert!(!show(&output).contains('\u{1b}') && show(&output).contains("manifest_unknown"));
    assert_eq!(fake.asked("/manifests/1"), 3);
}

/// Answers with a layer of 192 MiB, and holds its last byte back until it is told.
#[test]
fn memory_does_not_depend_on_the_image_and_a_signal_leaves_nothing() {
    let size = 192_usize << 20;
    let name = digest(b"never reached");
    let sent = Arc::new(Mutex::new(false));
    let done = sent.clone();
    let fake = Fake::start(move |asked| {
        if asked.line.contains("/manifests/") {
            return asked.answer(MANIFEST_HEAD, &manifest(b"{}", (&name, size)));
        }
        if asked.line.contains(&digest(b"{}")) {
            return asked.answer("200 OK", b"{}");
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
        asked.stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..size / 65_536 - 1 {
            if asked.stream.write_all(&[7; 16_384]).is_err() {
                return;
            }
        }
        *done.lock().unwrap() = true;
        // Until the other end goes away.
        let _ = asked.stream.read(&mut [0]);
    });
    let folder = tempfile::tempdir().unwrap();
    let mut child = pantry(folder.path())
        .args(["pull", &format!("{}/a/b:1", fake.address), text(&folder.path().join("new.tar"))])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the layer is nearly there", || *sent.lock().unwrap());
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let most: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(most < 64 * 1024, "{most} KiB for a layer of 192 MiB");
    assert_eq!(entries(folder.path()).len(), 1);
    signal(child.id(), nix::sys::signal::Signal::SIGTERM);
    let ended = wait_for(&mut child, std::time::Duration::from_secs(20)).unwrap();
    assert_eq!(ended.code(), Some(1));
    assert!(entries(folder.path()).is_empty(), "{:?}", entries(folder.path()));
}

#[test]
fn a_login_is_checked_kept_used_and_forgotten() {
    let fake = Fake::start(|asked| {
        // ada:right
        if asked.header("authorization") == Some("Basic YWRhOnJpZ2h0") {
            asked.answer("200 OK", b"{}");
        } else {
            asked.answer("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"", b"{}");
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let login = |password: &[u8], more: &[&str]| {
        let mut child = pantry(home)
            .args(["login", &fake.address, "--username", "ada", "--password-stdin"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(password).unwrap();
        child.wait_with_output().unwrap()
    };
    let wrong = login(b"wrong\n", &[]);
    assert_eq!(wrong.status.code(), Some(7), "{}", show(&wrong));
    assert!(!home.join(".docker").exists());
    let right = login(b"right\n", &[]);
    assert!(right.status.success(), "{}", show(&right));
    assert!(!show(&right).contains("right\n"));
    let file = home.join(".docker/config.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let name = format!("{}/a/b:1", fake.address);
    // The login is used: the registry answers, though not with a manifest.
    let pulled = run(home, &["pull", &name, text(&home.join("new"))]);
    assert_eq!(pulled.status.code(), Some(4), "{}", show(&pulled));
    assert!(run(home, &["logout", &fake.address]).status.success());
    assert_eq!(run(home, &["logout", &fake.address]).status.code(), Some(5));
    assert_eq!(run(home, &["pull", &name, text(&home.join("new"))]).status.code(), Some(7));
    // podman's file comes first.
    let runtime = home.join("run");
    std::fs::create_dir_all(runtime.join("containers")).unwrap();
    assert!(login(b"right", &["--auth-file", text(&runtime.join("containers/auth.json"))]).status.success());
    let pulled = pantry(home)
        .env("XDG_RUNTIME_DIR", &runtime)
        .args(["pull", &name, text(&home.join("new"))])
        .output()
        .unwrap();
    assert_eq!(pulled.status.code(), Some(4), "{}", show(&pulled));
    // A token of the environment is for the server that the environment names.
    let leaked = pantry(home)
        .env("PANTRY_TOKEN", "pty_secret")
        .env("PANTRY_HOST", "http://127.0.0.1:1")
        .args(["pull", &name, text(&home.join("new"))])
        .output()
        .unwrap();
    assert_eq!(leaked.status.code(), Some(7));
    assert!(http().get(format!("http://{}/v2/", fake.address)).send().is_ok());
}
