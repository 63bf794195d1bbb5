//! `pantry push` and `pull`: between files and this server.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::clients::{image, policy};
use super::support::{PANTRY, Server, digest, has, show, skip};

/// The program without anything of the caller's own logins or proxies.
pub fn pantry(home: &Path) -> Command {
    let mut command = Command::new(PANTRY);
    command.stdin(Stdio::null()).env("HOME", home);
    for name in ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "PANTRY_TOKEN", "PANTRY_HOST"] {
        command.env_remove(name);
    }
    command
}

pub fn run(home: &Path, arguments: &[&str]) -> Output {
    pantry(home).args(arguments).output().unwrap()
}

pub fn json_of(home: &Path, arguments: &[&str]) -> Value {
    let output = pantry(home).args(["--output", "json"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", show(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn index_of(layout: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(layout.join("index.json")).unwrap()).unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn entries(folder: &Path) -> Vec<String> {
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
