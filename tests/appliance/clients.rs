//! Real clients against the registry: skopeo, podman, and a docker engine that the test starts itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::support::{Server, checkout, has, is_root, show, skip, until};

/// An OCI layout with one small image, made by the test.
pub fn image(folder: &Path) -> PathBuf {
    let layout = folder.join("image");
    let script = r#"
import gzip, hashlib, io, json, os, sys, tarfile
out = sys.argv[1]
os.makedirs(out + "/blobs/sha256")
def blob(data):
    name = hashlib.sha256(data).hexdigest()
    open(f"{out}/blobs/sha256/{name}", "wb").write(data)
    return {"digest": "sha256:" + name, "size": len(data)}
tar = io.BytesIO()
with tarfile.open(fileobj=tar, mode="w") as archive:
    content = os.urandom(100_000)
    entry = tarfile.TarInfo("data"); entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
layer = tar.getvalue()
config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/data"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(config)},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **blob(gzip.compress(layer, mtime=0))}]}).encode()
descriptor = {"mediaType": "application/vnd.oci.image.manifest.v1+json", **blob(manifest),
    "annotations": {"org.opencontainers.image.ref.name": "1"}}
json.dump({"schemaVersion": 2, "manifests": [descriptor]}, open(out + "/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(out + "/oci-layout", "w"))
"#;
    let made = Command::new("/usr/bin/python3").args(["-c", script]).arg(&layout).status().unwrap();
    assert!(made.success());
    layout
}

/// A policy file for clients that ask for one.
pub fn policy(folder: &Path) -> PathBuf {
    let policy = folder.join("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    policy
}

fn well(output: &Output) -> String {
    assert!(output.status.success(), "{}", show(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn skopeo_pushes_and_pulls() {
    if !has("skopeo") {
        return skip("skopeo_pushes_and_pulls", "skopeo is not installed");
    }
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let layout = image(folder.path());
    let remote = format!("docker://{}/local/skopeo/app:1", server.address());
    let policy = policy(folder.path());
    let skopeo = |arguments: &[&str]| {
        Command::new("skopeo").arg("--policy").arg(&policy).args(arguments).output().unwrap()
    };
    let source = format!("oci:{}:1", layout.display());
    well(&skopeo(&["copy", "--dest-tls-verify=false", &source, &remote]));
    let back = format!("oci:{}:1", folder.path().join("back").display());
    well(&skopeo(&["copy", "--src-tls-verify=false", &remote, &back]));
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let digest = |index: &str| {
        serde_json::from_str::<serde_json::Value>(index).unwrap()["manifests"][0]["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        digest(&read(layout.join("index.json"))),
        digest(&read(folder.path().join("back/index.json")))
    );
    let tags = well(&skopeo(&[
        "list-tags",
        "--tls-verify=false",
        &format!("docker://{}/local/skopeo/app", server.address()),
    ]));
    assert!(tags.contains("\"1\""), "{tags}");
    well(&skopeo(&["delete", "--tls-verify=false", &remote]));
    assert_eq!(server.get("/v2/local/skopeo/app/manifests/1").0, 404);
}

/// podman with folders of its own.
struct Podman(tempfile::TempDir);

impl Podman {
    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.0.path().join("root"))
            .arg("--runroot")
            .arg(self.0.path().join("run"))
            .args([
                "--storage-driver=vfs",
                "--cgroup-manager=cgroupfs",
                "--events-backend=none",
                "--runtime=runc",
            ]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.run(&["rmi", "--all", "--force"]);
        let _ = Command::new("umount").arg("--quiet").arg(self.0.path().join("root/vfs")).output();
    }
}

#[test]
fn podman_pushes_pulls_and_runs_what_was_published() {
    if !has("podman") || !has("runc") || !is_root() {
        return skip("podman_pushes_pulls_and_runs_what_was_published", "needs podman, runc and root");
    }
    let server = Server::start();
    server.until_healthy();
    // podman makes a repository name of the folder's, so that it must be lowercase.
    let prefix = format!("pantry-podman-{}", std::process::id());
    let podman = Podman(tempfile::Builder::new().prefix(&prefix).rand_bytes(0).tempdir().unwrap());
    let layout = image(podman.0.path());
    let remote = format!("{}/local/podman/app:1", server.address());
    let loaded = well(&podman.run(&["pull", "--quiet", &format!("oci:{}:1", layout.display())]));
    let id = loaded.trim();
    well(&podman.run(&["push", "--tls-verify=false", id, &remote]));
    well(&podman.run(&["rmi", "--force", id]));
    well(&podman.run(&["pull", "--tls-verify=false", "--quiet", &remote]));

    let expected = publish_and_run_wrapper(&server);
    let published = format!("{}/packages/local/greeter:1.0.0", server.address());
    let printed = well(&podman.run(&[
        "run",
        "--rm",
        "--tls-verify=false",
        "--network=none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        &published,
        "ada",
    ]));
    assert_eq!(printed, expected, "podman run and the wrapper must print the same");
}

/// Publishes and installs the greeter; gives what its wrapper prints.
fn publish_and_run_wrapper(server: &Server) -> String {
    let submission = server.submit(&checkout().join("examples/greeter"));
    assert_eq!(submission["state"], "published", "{submission:#}");
    well(&server.pantry(&["install", "greeter"]));
    let printed = Command::new(server.root.join("bin/greet")).arg("ada").output().unwrap();
    let printed = well(&printed);
    assert!(printed.contains("Ada"), "{printed}");
    printed
}

/// A docker engine with folders of its own and no network set-up.
pub struct Docker {
    child: Child,
    folder: tempfile::TempDir,
}

impl Docker {
    pub fn start() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("pantry-dockerd-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("dockerd")
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args([
                "-H",
                &format!("unix://{}", at("sock")),
                "--iptables=false",
                "--bridge=none",
                "--storage-driver=vfs",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .ok()?;
        let mut docker = Self { child, folder };
        until("dockerd answers", || docker.docker(&["version"]).status.success() || docker.dead());
        if docker.dead() {
            let log = std::fs::read_to_string(docker.folder.path().join("log")).unwrap_or_default();
            println!("dockerd did not start: {}", log.lines().last().unwrap_or_default());
            return None;
        }
        Some(docker)
    }

    fn dead(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Lets the client know a login.
    pub fn keep_login(&self, config: &str) {
        std::fs::create_dir_all(self.folder.path().join("config")).unwrap();
        std::fs::write(self.folder.path().join("config/config.json"), config).unwrap();
    }

    pub fn docker(&self, arguments: &[&str]) -> Output {
        Command::new("docker")
            .arg("-H")
            .arg(format!("unix://{}", self.folder.path().join("sock").display()))
            .env("DOCKER_CONFIG", self.folder.path().join("config"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        super::support::signal(self.child.id(), nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        let _ = Command::new("umount").arg("--quiet").arg(self.folder.path().join("data")).output();
    }
}

#[test]
fn docker_pushes_pulls_and_runs_what_was_published() {
    if !has("dockerd") || !is_root() {
        return skip("docker_pushes_pulls_and_runs_what_was_published", "needs dockerd and root");
    }
    let server = Server::start();
    server.until_healthy();
    let Some(docker) = Docker::start() else {
        return skip("docker_pushes_pulls_and_runs_what_was_published", "dockerd does not start here");
    };
    let expected = publish_and_run_wrapper(&server);
    let published = format!("{}/packages/local/greeter:1.0.0", server.address());
    let printed = well(&docker.docker(&["run", "--rm", "--network=none", &published, "ada"]));
    assert_eq!(printed, expected, "docker run and the wrapper must print the same");

    let own = format!("{}/local/docker/greeter:copy", server.address());
    well(&docker.docker(&["tag", &published, &own]));
    well(&docker.docker(&["push", &own]));
    well(&docker.docker(&["rmi", &own, &published]));
    well(&docker.docker(&["pull", &own]));
    let refused = docker.docker(&["tag", &own, &published]);
    assert!(refused.status.success());
    let refused = docker.docker(&["push", &published]);
    assert!(!refused.status.success(), "clients must not push to packages/: {}", show(&refused));
}
