//! Real clients against repositories that are not for everybody: wrong passwords, and tokens that end in mid-pull.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::clients::policy;
use super::support::{Server, digest, has, is_root, show, skip, until};

pub const PASSWORD: &str = "correct horse battery";

/// So long a token of the service counts here: as briefly as may be.
const LIFE: Duration = Duration::from_mins(1);

/// More layers than any client fetches at once, so that some are asked for later than others.
const LAYERS: usize = 12;

/// A server with the user `ada`, who alone may use `local/private`.
pub fn server(environment: &[(&str, &str)]) -> Server {
    let server = Server::start_with(&[&[("PANTRY_AUTH_MODE", "token")], environment].concat());
    let mut child = Command::new(super::support::PANTRY)
        .arg("--root")
        .arg(&server.root)
        .args(["user", "add", "ada", "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let granted = server.pantry(&["grant", "add", "user:ada", "local/private", "pull,push"]);
    assert!(granted.status.success(), "{}", show(&granted));
    server
}

/// A layout with an image of many layers.
fn layers(folder: &Path) -> std::path::PathBuf {
    let layout = folder.join("layers");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let keep = |bytes: &[u8], kind: &str| {
        let digest = digest(bytes);
        std::fs::write(layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), bytes)
            .unwrap();
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len() })
    };
    let mut found = Vec::new();
    for number in 0..LAYERS {
        let name = folder.join(format!("file-{number}"));
        std::fs::write(&name, format!("{number}\n").repeat(2000)).unwrap();
        let tar =
            Command::new("tar").args(["cf", "-", "-C"]).arg(folder).arg(format!("file-{number}")).output();
        found.push(keep(&tar.unwrap().stdout, "layer.v1.tar"));
    }
    let diffs: Vec<_> = found.iter().map(|layer| layer["digest"].clone()).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diffs } });
    let config = keep(config.to_string().as_bytes(), "config.v1+json");
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": found });
    let manifest = keep(manifest.to_string().as_bytes(), "manifest.v1+json");
    std::fs::write(
        layout.join("index.json"),
        json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string(),
    )
    .unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

fn pantry(home: &Path, arguments: &[&str], password: &str) -> Output {
    let mut child = Command::new(super::support::PANTRY)
        .args(arguments)
        .args(["--username", "ada", "--password-stdin"])
        .env("HOME", home)
        .env_remove("PANTRY_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_private_repository_is_there_for_its_users_alone() {
    let server = server(&[]);
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let layout = layers(home);
    let name = format!("{}/local/private/app:1", server.address());
    let sent = pantry(home, &["push", layout.to_str().unwrap(), &name], PASSWORD);
    assert!(sent.status.success(), "{}", show(&sent));
    let destination = home.join("new");
    let destination = destination.to_str().unwrap();
    let wrong = pantry(home, &["pull", &name, destination], "wrong");
    assert_eq!(wrong.status.code(), Some(7), "{}", show(&wrong));
    let nobody = Command::new(super::support::PANTRY)
        .args(["pull", &name, destination])
        .env("HOME", home)
        .env_remove("PANTRY_TOKEN")
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(7), "{}", show(&nobody));
    // Who may not pull cannot tell it from what is not there.
    let elsewhere = format!("{}/local/others/app:1", server.address());
    let hidden = pantry(home, &["pull", &elsewhere, destination], PASSWORD);
    assert_eq!(hidden.status.code(), Some(5), "{}", show(&hidden));
    let denied = pantry(home, &["push", layout.to_str().unwrap(), &elsewhere], PASSWORD);
    assert!(matches!(denied.status.code(), Some(5 | 7)), "{}", show(&denied));
    let got = pantry(home, &["pull", &name, destination], PASSWORD);
    assert!(got.status.success(), "{}", show(&got));
    let audit = server.admin_get("/v1/audit?limit=200").to_string();
    assert!(!audit.contains(PASSWORD) && !server.whole_log().contains(PASSWORD));
}

/// Passes requests on to a server, one after the other on each connection, and holds the ends of the first layers back
/// until the tokens that they were asked for with are worth nothing.
struct Slow {
    address: String,
    held: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    tokens: Arc<AtomicUsize>,
}

impl Slow {
    fn start(listener: TcpListener, server: String) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let slow = Self { address, held: Arc::default(), refused: Arc::default(), tokens: Arc::default() };
        let counters = (slow.held.clone(), slow.refused.clone(), slow.tokens.clone());
        let until = Arc::new(Mutex::new(None::<Instant>));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, until, counters) = (server.clone(), until.clone(), counters.clone());
                std::thread::spawn(move || {
                    let _ = Self::pass(&client, &server, &until, &counters);
                });
            }
        });
        slow
    }

    fn pass(
        client: &TcpStream,
        server: &str,
        until: &Mutex<Option<Instant>>,
        (held, refused, renewals): &(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>),
    ) -> std::io::Result<()> {
        let upstream = TcpStream::connect(server)?;
        let (mut asked, mut answered) = (BufReader::new(client), BufReader::new(&upstream));
        loop {
            let Some((line, length, request)) = head(&mut asked)? else { return Ok(()) };
            let mut body = vec![0; length];
            asked.read_exact(&mut body)?;
            (&upstream).write_all(&[request, body].concat())?;
            let Some((status, length, answer)) = head(&mut answered)? else { return Ok(()) };
            refused.fetch_add(usize::from(status.contains(" 401 ")), Ordering::Relaxed);
            renewals.fetch_add(usize::from(line.contains("/v2/token")), Ordering::Relaxed);
            let mut body = vec![0; if line.starts_with("HEAD") { 0 } else { length }];
            answered.read_exact(&mut body)?;
            let mut client = client;
            client.write_all(&answer)?;
            // A layer, and not the configuration, which is shorter.
            if line.contains("/blobs/") && status.contains(" 200 ") && body.len() > 8192 {
                let end = {
                    let mut until = until.lock().unwrap();
                    *until.get_or_insert_with(|| Instant::now() + LIFE + Duration::from_secs(3))
                };
                let (most, last) = body.split_at(body.len() - 1);
                client.write_all(most)?;
                if let Some(left) = end.checked_duration_since(Instant::now()) {
                    held.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(left);
                }
                client.write_all(last)?;
            } else {
                client.write_all(&body)?;
            }
        }
    }
}

/// The first line of a head, the length of what follows, and the head itself; none at the end.
fn head(from: &mut impl std::io::BufRead) -> std::io::Result<Option<(String, usize, Vec<u8>)>> {
    let (mut first, mut length, mut all) = (String::new(), 0, Vec::new());
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        all.extend_from_slice(line.as_bytes());
        if first.is_empty() {
            first.clone_from(&line);
        } else if line == "\r\n" {
            return Ok(Some((first, length, all)));
        } else if let Some((_, value)) =
            line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
}

/// Pulls through a [`Slow`] of its own; `pull` is given the address, and a folder.
fn outlive_a_token(test: &str, pull: impl FnOnce(&str, &Path) -> Option<Output>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let life = LIFE.as_secs().to_string();
    let server = server(&[("PANTRY_AUTH_TOKEN_TTL_SECONDS", &life), ("PANTRY_PUBLIC_URL", &address)]);
    let folder = tempfile::Builder::new().prefix("pantry-private-").rand_bytes(8).tempdir().unwrap();
    let layout = layers(folder.path());
    let name = format!("{}/local/private/app:1", server.address());
    let slow = Slow::start(listener, server.address().to_owned());
    // Past the slow one, with a token of the API: no password goes to the realm, which is another address.
    let sent = Command::new(super::support::PANTRY)
        .args(["push", layout.to_str().unwrap(), &name, "--token", &server.token()])
        .env("HOME", folder.path())
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", show(&sent));
    slow.tokens.store(0, Ordering::Relaxed);
    let Some(output) = pull(&slow.address, folder.path()) else {
        return skip(test, "the client is not installed, or does not run here");
    };
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let seen = format!(
        "held {}, refused {}, tokens {}",
        count(&slow.held),
        count(&slow.refused),
        count(&slow.tokens)
    );
    assert!(output.status.success(), "{seen}: {}\n{}", show(&output), server.log());
    assert!(
        count(&slow.held) > 0 && count(&slow.held) < LAYERS,
        "the pull must be caught in the middle: {seen}"
    );
    assert!(count(&slow.tokens) >= 2, "the token must have been renewed: {seen}");
}

#[test]
fn pantry_outlives_its_token() {
    outlive_a_token("pantry_outlives_its_token", |address, folder| {
        let (name, new) = (format!("{address}/local/private/app:1"), folder.join("new"));
        Some(pantry(folder, &["pull", &name, new.to_str().unwrap()], PASSWORD))
    });
}

#[test]
fn skopeo_outlives_its_token() {
    outlive_a_token("skopeo_outlives_its_token", |address, folder| {
        let policy = policy(folder);
        has("skopeo").then(|| {
            Command::new("skopeo")
                .arg("--policy")
                .arg(policy)
                .args(["copy", "--src-tls-verify=false", "--src-creds", &format!("ada:{PASSWORD}")])
                .arg(format!("docker://{address}/local/private/app:1"))
                .arg(format!("oci:{}:1", folder.join("new").display()))
                .output()
                .unwrap()
        })
    });
}

#[test]
fn containerd_outlives_its_token() {
    outlive_a_token("containerd_outlives_its_token", |address, folder| {
        if !has("containerd") || !has("ctr") || !is_root() {
            return None;
        }
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("sock")
        );
        std::fs::write(folder.join("config.toml"), config).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut engine = Command::new("containerd")
            .args(["--config", &at("config.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let ctr = |arguments: &[&str]| {
            Command::new("ctr").args(["--address", &at("sock")]).args(arguments).output().unwrap()
        };
        until("containerd answers", || ctr(&["version"]).status.success());
        let user = format!("ada:{PASSWORD}");
        let name = format!("{address}/local/private/app:1");
        let options =
            ["images", "pull", "--plain-http", "--snapshotter", "native", "--max-concurrent-downloads", "2"];
        let pull = || ctr(&[&options[..], &["--user", &user, &name]].concat());
        let mut output = pull();
        // containerd 1.6 shows one token for a whole pull and forgets it only when it is told so twice, as an error;
        // the next pull begins with another.
        if show(&output).contains("invalid_token: authorization failed") {
            output = pull();
        }
        super::support::signal(engine.id(), nix::sys::signal::Signal::SIGTERM);
        let _ = engine.wait();
        Some(output)
    });
}

#[test]
fn docker_outlives_its_token() {
    outlive_a_token("docker_outlives_its_token", |address, folder| {
        if !has("dockerd") || !is_root() {
            return None;
        }
        let docker = super::clients::Docker::start()?;
        let auth = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(format!("ada:{PASSWORD}"))
        };
        docker.keep_login(&json!({ "auths": { address: { "auth": auth } } }).to_string());
        let _ = folder;
        Some(docker.docker(&["pull", &format!("{address}/local/private/app:1")]))
    });
}
