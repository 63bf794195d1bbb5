//! `pantry push`, `pull`, `login` and `logout`: between files and registries, this server and others.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::clients::{image, policy};
use super::support::{PANTRY, Server, has, http, show, signal, skip, until, wait_for};

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The program without anything of the caller's own logins or proxies.
fn pantry(home: &Path) -> Command {
    let mut command = Command::new(PANTRY);
    command.stdin(Stdio::null()).env("HOME", home);
    for name in ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "PANTRY_TOKEN", "PANTRY_HOST"] {
        command.env_remove(name);
    }
    command
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    pantry(home).args(arguments).output().unwrap()
}

fn json_of(home: &Path, arguments: &[&str]) -> Value {
    let output = pantry(home).args(["--output", "json"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", show(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn index_of(layout: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(layout.join("index.json")).unwrap()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn entries(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A layout with one image each for amd64 and arm64, in one index.
fn two_platforms(folder: &Path) -> PathBuf {
    let layout = folder.join("two");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let keep = |bytes: &[u8], kind: &str| {
        let digest = digest(bytes);
        std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let mut images = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let config = json!({ "architecture": architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } });
        let config = keep(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let own = keep(architecture.as_bytes(), "application/vnd.oci.image.layer.v1.tar");
        let shared = keep(b"shared", "application/vnd.oci.image.layer.v1.tar");
        let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [own, shared] });
        let mut image = keep(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
        image["platform"] = json!({ "os": "linux", "architecture": architecture });
        images.push(image);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": images });
    let index = keep(index.to_string().as_bytes(), "application/vnd.oci.image.index.v1+json");
    std::fs::write(
        layout.join("index.json"),
        json!({ "schemaVersion": 2, "manifests": [index] }).to_string(),
    )
    .unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

#[test]
fn an_image_goes_there_and_back_unchanged() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let layout = image(home);
    let name = format!("{}/local/images/app:1", server.address());
    let sent = json_of(home, &["push", text(&layout), &name]);
    assert_eq!((&sent["blobs"]["transferred"], &sent["manifests"]), (&json!(2), &json!(1)), "{sent}");
    assert_eq!(sent["digest"], index_of(&layout)["manifests"][0]["digest"]);
    let again = json_of(home, &["push", text(&layout), &name]);
    assert_eq!(
        (&again["blobs"]["transferred"], &again["blobs"]["present"]),
        (&json!(0), &json!(2)),
        "{again}"
    );

    let back = home.join("back");
    let got = json_of(home, &["pull", &name, text(&back)]);
    assert_eq!(got["digest"], sent["digest"]);
    for blob in entries(&layout.join("blobs/sha256")) {
        let read = |layout: &Path| std::fs::read(layout.join("blobs/sha256").join(&blob)).unwrap();
        assert!(read(&layout) == read(&back), "{blob}");
    }
    assert_eq!(index_of(&back)["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1");

    let archive = home.join("back.tar");
    json_of(
        home,
        &[
            "pull",
            &format!("{}/local/images/app@{}", server.address(), sent["digest"].as_str().unwrap()),
            text(&archive),
        ],
    );
    let copy = format!("{}/local/images/copy:2", server.address());
    assert_eq!(json_of(home, &["push", text(&archive), &copy])["digest"], sent["digest"]);
    let lines = run(home, &["push", text(&back), &copy]);
    let said = String::from_utf8_lossy(&lines.stderr).into_owned();
    assert!(lines.status.success() && said.matches("already there").count() == 2, "{}", show(&lines));
    assert!(!said.contains('\u{1b}'), "no bars where nobody watches: {said:?}");
    assert!(run(home, &["--quiet", "push", text(&back), &copy]).stderr.is_empty());
}

#[test]
fn what_the_registry_has_elsewhere_is_mounted() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let name = |repository: &str| format!("{}/local/mount/{repository}:1", server.address());
    json_of(home, &["push", text(&image(home)), &name("from")]);
    json_of(home, &["pull", &name("from"), text(&home.join("pulled"))]);
    let sent = json_of(home, &["push", text(&home.join("pulled")), &name("to")]);
    assert_eq!((&sent["blobs"]["mounted"], &sent["blobs"]["bytes"]), (&json!(2), &json!(0)), "{sent}");
    assert_eq!(server.get("/v2/local/mount/to/manifests/1").0, 200);
}

#[test]
fn platforms_are_chosen_or_taken_all() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let layout = two_platforms(home);
    let name = format!("{}/local/images/two:1", server.address());
    let sent = json_of(home, &["push", text(&layout), &name]);
    assert_eq!((&sent["manifests"], &sent["blobs"]["transferred"]), (&json!(3), &json!(5)), "{sent}");
    let all = json_of(home, &["pull", "--all", &name, text(&home.join("all"))]);
    assert_eq!((&all["digest"], &all["manifests"]), (&sent["digest"], &json!(3)));
    let arm = json_of(home, &["pull", "--platform", "linux/arm64", &name, text(&home.join("arm"))]);
    assert_eq!((&arm["manifests"], &arm["blobs"]["transferred"]), (&json!(1), &json!(3)));
    assert_eq!(index_of(&home.join("arm"))["manifests"][0]["platform"]["architecture"], "arm64");
    let none = run(home, &["pull", "--platform", "plan9/mips", &name, text(&home.join("none"))]);
    assert_eq!(none.status.code(), Some(5), "{}", show(&none));
    assert!(show(&none).contains("linux/amd64, linux/arm64"), "{}", show(&none));
    assert!(!home.join("none").exists());

    // One platform of the many.
    let one = format!("{}/local/images/one:1", server.address());
    let sent = json_of(home, &["push", "--platform", "linux/arm64", text(&layout), &one]);
    assert_eq!(sent["digest"], arm["digest"]);
    // A layout that lacks the other one.
    let gone = index_of(&home.join("all"))["manifests"][0]["digest"].as_str().unwrap().to_owned();
    assert!(home.join("all/blobs/sha256").join(gone.trim_start_matches("sha256:")).exists());
    let amd = std::fs::read(layout.join("blobs/sha256").join(digest(b"amd64").trim_start_matches("sha256:")))
        .unwrap();
    assert_eq!(amd, b"amd64");
    std::fs::remove_file(layout.join("blobs/sha256").join(digest(b"amd64").trim_start_matches("sha256:")))
        .unwrap();
    let other = format!("{}/local/images/lacking:1", server.address());
    let lacking = run(home, &["push", text(&layout), &other]);
    assert_eq!(lacking.status.code(), Some(4), "{}", show(&lacking));
    assert!(show(&lacking).contains("source_incomplete") && show(&lacking).contains("--platform"));
    assert_eq!(server.get("/v2/local/images/lacking/manifests/1").0, 404);
}

#[test]
fn what_docker_save_writes_can_be_pushed() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let saved = home.join("saved.tar");
    let script = r#"
import hashlib, io, json, sys, tarfile
out = tarfile.open(sys.argv[1], "w")
def put(name, data):
    entry = tarfile.TarInfo(name); entry.size = len(data); out.addfile(entry, io.BytesIO(data))
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as inner:
    entry = tarfile.TarInfo("f"); entry.size = 3; inner.addfile(entry, io.BytesIO(b"abc"))
layer = layer.getvalue()
put("l/layer.tar", layer)
link = tarfile.TarInfo("m/layer.tar"); link.type = tarfile.SYMTYPE; link.linkname = "../l/layer.tar"; out.addfile(link)
diff = "sha256:" + hashlib.sha256(layer).hexdigest()
config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff, diff]}}).encode()
put("c.json", config)
put("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["app:7"], "Layers": ["l/layer.tar", "m/layer.tar"]}]).encode())
out.close()
print(diff)
"#;
    let made = Command::new("/usr/bin/python3").args(["-c", script]).arg(&saved).output().unwrap();
    let diff = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let name = format!("{}/local/images/saved:7", server.address());
    json_of(home, &["push", text(&saved), &name]);
    let manifest = server.get("/v2/local/images/saved/manifests/7").1;
    assert_eq!(
        (&manifest["layers"][0]["digest"], &manifest["layers"][1]["digest"]),
        (&json!(diff), &json!(diff))
    );
    let packed = Command::new("gzip").arg(&saved).status().unwrap();
    assert!(packed.success());
    let refused = run(home, &["push", text(&home.join("saved.tar.gz")), &name]);
    assert_eq!(refused.status.code(), Some(2), "{}", show(&refused));
    assert!(show(&refused).contains("compressed"));
}

#[test]
fn other_clients_read_what_was_pulled() {
    if !has("skopeo") {
        return skip("other_clients_read_what_was_pulled", "skopeo is not installed");
    }
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let name = format!("{}/local/images/read:1", server.address());
    let sent = json_of(home, &["push", text(&image(home)), &name]);
    let policy = policy(home);
    for (kind, path) in [("oci", home.join("pulled")), ("oci-archive", home.join("pulled.tar"))] {
        json_of(home, &["pull", &name, text(&path)]);
        let seen = Command::new("skopeo")
            .arg("--policy")
            .arg(&policy)
            .args(["inspect", &format!("{kind}:{}:1", path.display())])
            .output()
            .unwrap();
        assert!(seen.status.success(), "{}", show(&seen));
        let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
        assert_eq!(seen["Digest"], sent["digest"], "{kind}");
    }
}

#[test]
fn the_public_client_crate_and_the_command_understand_each_other() {
    use oci_distribution::client::{ClientConfig, ClientProtocol};
    use oci_distribution::secrets::RegistryAuth;
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{}/local/images/crate:1", server.address());
    let sent = json_of(folder.path(), &["push", text(&image(folder.path())), &name]);
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    let client = oci_distribution::Client::try_from(config).unwrap();
    let reference: oci_distribution::Reference = name.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_, got) =
        runtime.block_on(client.pull_image_manifest(&reference, &RegistryAuth::Anonymous)).unwrap();
    assert_eq!(sent["digest"], got);
}

#[test]
fn wrong_requests_say_what_is_wrong_and_leave_nothing() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let layout = image(home);
    let name = format!("{}/local/images/none:1", server.address());
    let (there, full) = (home.join("there"), home.join("there/file"));
    std::fs::create_dir(&there).unwrap();
    std::fs::write(&full, "mine").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let before = entries(home);
    for (arguments, code, said) in [
        (vec!["push", text(&layout), "local/app:1"], 2, "names no registry|no registry"),
        (vec!["push", "/nonexistent", &name], 2, "source_unreadable"),
        (vec!["push", text(&there), &name], 2, "no OCI image layout"),
        (vec!["push", text(&full), &name], 2, "archive_not_valid|no archive"),
        (vec!["push", text(&layout), &format!("{}/pantry/base:1", server.address())], 7, "denied"),
        (vec!["push", text(&layout), &format!("{}/mistyped/x:1", server.address())], 5, "name_unknown"),
        (vec!["push", "--ref", "9", text(&layout), &name], 2, "image_not_chosen"),
        (vec!["pull", &name, text(&home.join("new"))], 5, "manifest_unknown|name_unknown"),
        (vec!["pull", &name, text(&there)], 6, "destination_exists"),
        (vec!["pull", &name, "/nonexistent/x"], 2, "destination_unwritable"),
        (vec!["pull", &format!("{closed}/a/b:1"), text(&home.join("new"))], 3, "registry_unreachable"),
        (vec!["pull", "--plain-http=false", &name, text(&home.join("new"))], 3, "registry_unreachable"),
        (vec!["pull", "--ca", text(&full), &name, text(&home.join("new"))], 2, "ca_not_valid"),
        (vec!["pull", "--platform", "linux", &name, text(&home.join("new"))], 2, "OS/ARCH"),
    ] {
        let output = run(home, &arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", show(&output));
        let shown = show(&output);
        assert!(said.split('|').any(|said| shown.contains(said)), "{arguments:?}: {shown}");
        assert_eq!(entries(home), before, "{arguments:?}");
    }
    assert_eq!(std::fs::read_to_string(full).unwrap(), "mine");
}

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
        while asked.stream.write_all(&[b' '; 65_536]).is_ok() {}
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
                asked.answer(&format!("202 Accepted\r\nLocation: http://{away}/elsewhere?x=y"), b"")
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
            if asked.stream.write_all(&[7; 65_536]).is_err() {
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
