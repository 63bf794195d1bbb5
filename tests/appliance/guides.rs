//! The commands of `docs/guides/`, run as they stand there by the clients that the pages are about.
//!
//! Server and clients share a network and an `/etc` of their own, in which `pantry.example` is the server's name: so
//! neither the pages nor this machine's configuration have to be altered.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::accounts::Account;
use super::clients::image;
use super::support::{
    PANTRY, bundle, checkout, first_line, fresh_root, is_root, show, signal, skip, wait_for,
};

/// What a script ends with when a client does not run on this machine.
const UNABLE: i32 = 77;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Loopback,
    Tls,
}

/// A server in namespaces of its own, and a folder for those who talk to it.
struct Bench {
    server: Child,
    folder: tempfile::TempDir,
    root: tempfile::TempDir,
}

/// Makes the network and the `/etc`, and becomes the server.
const SETTLE: &str = r#"
set -eu
ip link set lo up
ip address add 192.0.2.7/32 dev lo
mount -t tmpfs none "$W/etc"
mkdir "$W/etc/upper" "$W/etc/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$W/etc/upper,workdir=$W/etc/work" /etc
printf '127.0.0.1 localhost\n192.0.2.7 pantry.example\n' > /etc/hosts
rm -rf /etc/docker/certs.d /etc/containers/certs.d /etc/containers/registries.conf.d /etc/containerd/certs.d
exec "$@"
"#;

impl Bench {
    fn start(mode: Mode) -> Self {
        let folder = tempfile::Builder::new().prefix("pantry-guide-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["etc", "bin", "home", "run", "work"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::os::unix::fs::symlink(PANTRY, at("bin/pantry")).unwrap();
        std::fs::rename(image(&at("work")), at("work/app")).unwrap();
        for (name, text) in [
            ("ada.password", "correct horse battery\n"),
            ("ada.netrc", "machine pantry.example login ada password \"correct horse battery\"\n"),
        ] {
            std::fs::write(at("work").join(name), text).unwrap();
            std::fs::set_permissions(at("work").join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let root = fresh_root();
        let listen = if mode == Mode::Tls { "192.0.2.7:7721" } else { "127.0.0.1:7721" };
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", SETTLE, "sh"])
            .arg(Account::Caller.program())
            .arg("--root")
            .arg(root.path().join("root"))
            .args(["serve", "--listen", listen])
            .env("W", folder.path())
            .env("PANTRY_BUNDLE_LAYOUT", bundle())
            .env_remove("PANTRY_FAULT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(at("server.log")).unwrap());
        if mode == Mode::Tls {
            command.env("PANTRY_PUBLIC_URL", "https://pantry.example:7721");
        }
        let mut server = command.spawn().unwrap();
        let (line, _) = first_line(&mut server);
        let log = std::fs::read_to_string(at("server.log")).unwrap_or_default();
        let bench = Self { server, folder, root };
        let line = line.unwrap_or_else(|| panic!("the server did not start:\n{log}"));
        assert!(line.contains("ready at"), "{line}");
        if mode == Mode::Tls {
            let authority = bench.root().join("ca.pem");
            std::fs::copy(&authority, bench.work().join("ca.pem"))
                .expect("the server must tell its authority");
        }
        bench
    }

    fn root(&self) -> PathBuf {
        self.root.path().join("root")
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Runs a script beside the server.
    fn run(&self, script: &str) -> Output {
        let folder = self.folder.path();
        let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.server.id().to_string(), "--net", "--mount"])
            .args(["bash", "-euxo", "pipefail", "-c", &format!("cd \"$W/work\"\n{script}")])
            .env("W", folder)
            .env("PATH", path)
            .env("HOME", folder.join("home"))
            .env("XDG_RUNTIME_DIR", folder.join("run"))
            .env("PANTRY_ROOT", self.root())
            .stdin(Stdio::null());
        for name in
            ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "DOCKER_HOST", "PANTRY_TOKEN", "PANTRY_HOST", "PANTRY_CA"]
        {
            command.env_remove(name);
        }
        command.output().unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) {
            signal(self.server.id(), nix::sys::signal::Signal::SIGTERM);
            if wait_for(&mut self.server, std::time::Duration::from_secs(10)).is_none() {
                let _ = self.server.kill();
                let _ = self.server.wait();
            }
        }
    }
}

/// The blocks of a page that bear one of these words behind `sh`, in order.
fn blocks(page: &str, words: &[&str]) -> String {
    let text = std::fs::read_to_string(checkout().join("docs/guides").join(page)).unwrap();
    let mut script = String::new();
    let mut taken = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), taken) {
            (Some(info), None) => {
                taken = Some(info.strip_prefix("sh ").is_some_and(|word| words.contains(&word)));
            }
            (Some(_), Some(_)) => taken = None,
            (None, Some(true)) => {
                script += line;
                script += "\n";
            }
            _ => {}
        }
    }
    script
}

/// Runs what a page says for a mode; `before` makes the client ready, and what is `refused` must fail after it.
fn walk(test: &str, page: &str, mode: Mode, needs: &[&str], before: &str, refused: &[&str]) {
    if !is_root() {
        return skip(test, "networks and an /etc of one's own need root");
    }
    let needed = [&["unshare", "nsenter", "ip", "curl"], needs].concat();
    if let Some(missing) = needed.iter().find(|program| !on_path(program)) {
        return skip(test, &format!("{missing} is not installed"));
    }
    let bench = Bench::start(mode);
    let mut script = before.to_owned();
    let own = if mode == Mode::Tls {
        let accounts = if page == "README.md" { String::new() } else { blocks("README.md", &["server"]) };
        script = format!("{accounts}{script}");
        blocks(page, &["server", "tls"])
    } else {
        blocks(page, &["loopback"])
    };
    assert!(!own.is_empty(), "{page} has no commands for {mode:?}");
    script += &own;
    for command in refused {
        script += "if ";
        script += command;
        script += "; then echo 'this must be refused' >&2; exit 1; fi\n";
    }
    if mode == Mode::Tls {
        // Whatever the page did: nobody else sees what is private.
        script += r#"test "$(curl --silent --cacert ca.pem --output answer --write-out '%{http_code}' \
            https://pantry.example:7721/v2/local/team/app/tags/list)" = 401"#;
    }
    let output = bench.run(&script);
    if output.status.code() == Some(UNABLE) {
        let said =
            String::from_utf8_lossy(&output.stderr).lines().rev().nth(1).unwrap_or_default().to_owned();
        return skip(test, &format!("the client does not run here: {said}"));
    }
    let log = std::fs::read_to_string(bench.folder.path().join("server.log")).unwrap_or_default();
    let log: Vec<&str> = log.lines().rev().take(15).collect();
    assert!(output.status.success(), "{page}, {mode:?}: {}\n{log:#?}", show(&output));
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| is_program(&folder.join(program)))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// An engine of its own, with an image.
const DOCKER: &str = r#"
dockerd --data-root "$W/docker" --exec-root "$W/exec" --pidfile "$W/docker.pid" --host "unix://$W/docker.sock" \
    --iptables=false --bridge=none --storage-driver=vfs > "$W/dockerd.log" 2>&1 &
engine=$!
trap 'kill $engine; wait $engine || true; umount --quiet "$W/docker" || true' EXIT
export DOCKER_HOST="unix://$W/docker.sock"
until docker version > version 2>&1; do
    kill -0 $engine || { tail -1 "$W/dockerd.log" >&2; trap - EXIT; exit 77; }
    sleep 0.1
done
echo data > data
tar cf rootfs.tar data
docker import rootfs.tar app:1
"#;

/// Folders of its own, and an image.
const PODMAN: &str = r#"
export CONTAINERS_STORAGE_CONF="$W/storage.conf" CONTAINERS_CONF="$W/containers.conf"
printf '[storage]\ndriver = "vfs"\nrunroot = "%s"\ngraphroot = "%s"\n' "$W/podman-run" "$W/podman" > "$W/storage.conf"
printf '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "runc"\n' > "$W/containers.conf"
mkdir -p /etc/containers
echo '{"default":[{"type":"insecureAcceptAnything"}]}' > /etc/containers/policy.json
trap 'umount --quiet "$W/podman/vfs" || true' EXIT
"#;

const PODMAN_IMAGE: &str = "
echo data > data
tar cf rootfs.tar data
podman import --quiet rootfs.tar app:1
";

/// A containerd of its own, with an image.
const CONTAINERD: &str = r#"
mkdir -p /etc/containerd
cat > "$W/containerd.toml" <<END
version = 2
root = "$W/containerd"
state = "$W/containerd-run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$W/containerd.sock"
END
containerd --config "$W/containerd.toml" > "$W/containerd.log" 2>&1 &
engine=$!
trap 'kill $engine; wait $engine || true' EXIT
export CONTAINERD_ADDRESS="$W/containerd.sock" CONTAINERD_SNAPSHOTTER=native
until ctr version > version 2>&1; do
    kill -0 $engine || { tail -1 "$W/containerd.log" >&2; trap - EXIT; exit 77; }
    sleep 0.1
done
tar cf app.tar -C app .
ctr images import --base-name docker.io/library/app app.tar
"#;

#[test]
fn the_guide_for_docker_on_this_machine() {
    walk(
        "the_guide_for_docker_on_this_machine",
        "docker.md",
        Mode::Loopback,
        &["docker", "dockerd"],
        DOCKER,
        &[],
    );
}

#[test]
fn the_guide_for_docker_with_tls() {
    walk(
        "the_guide_for_docker_with_tls",
        "docker.md",
        Mode::Tls,
        &["docker", "dockerd"],
        DOCKER,
        &["docker login pantry.example:7721 --username ada --password-stdin <<< wrong"],
    );
}

#[test]
fn the_guide_for_podman_on_this_machine() {
    let before = format!("{PODMAN}{PODMAN_IMAGE}");
    walk(
        "the_guide_for_podman_on_this_machine",
        "podman.md",
        Mode::Loopback,
        &["podman", "buildah", "runc"],
        &before,
        &[],
    );
}

#[test]
fn the_guide_for_podman_with_tls() {
    let before = format!("{PODMAN}{PODMAN_IMAGE}");
    walk(
        "the_guide_for_podman_with_tls",
        "podman.md",
        Mode::Tls,
        &["podman", "buildah", "runc"],
        &before,
        &[
            "podman login pantry.example:7721 --username ada --password-stdin <<< wrong",
            "buildah login --username ada --password-stdin pantry.example:7721 <<< wrong",
            "podman pull pantry.example:7721/local/team/app:1",
        ],
    );
}

#[test]
fn the_guide_for_skopeo_on_this_machine() {
    walk("the_guide_for_skopeo_on_this_machine", "skopeo.md", Mode::Loopback, &["skopeo"], PODMAN, &[]);
}

#[test]
fn the_guide_for_skopeo_with_tls() {
    walk(
        "the_guide_for_skopeo_with_tls",
        "skopeo.md",
        Mode::Tls,
        &["skopeo"],
        PODMAN,
        &[
            "skopeo inspect --creds ada:wrong docker://pantry.example:7721/local/public/app:1",
            "skopeo list-tags docker://pantry.example:7721/local/team/app",
        ],
    );
}

#[test]
fn the_guide_for_containerd_on_this_machine() {
    walk(
        "the_guide_for_containerd_on_this_machine",
        "containerd.md",
        Mode::Loopback,
        &["ctr", "containerd"],
        CONTAINERD,
        &[],
    );
}

#[test]
fn the_guide_for_containerd_with_tls() {
    walk(
        "the_guide_for_containerd_with_tls",
        "containerd.md",
        Mode::Tls,
        &["ctr", "containerd"],
        CONTAINERD,
        &[
            "ctr images pull --tlscacert ca.pem --user ada:wrong pantry.example:7721/local/team/app:1",
            "ctr images pull --tlscacert ca.pem pantry.example:7721/local/team/app:1",
            "ctr images pull --user \"ada:$(cat ada.password)\" pantry.example:7721/local/team/app:1",
        ],
    );
}

#[test]
fn the_guide_for_nodes_of_kubernetes() {
    let before = format!(
        "{CONTAINERD}pantry --ca ca.pem push app pantry.example:7721/local/team/app:1 \
         --username ada --password-stdin < ada.password\n"
    );
    walk(
        "the_guide_for_nodes_of_kubernetes",
        "kubernetes.md",
        Mode::Tls,
        &["ctr", "containerd"],
        &before,
        &[],
    );
}

#[test]
fn the_guide_for_pantry_on_this_machine() {
    walk("the_guide_for_pantry_on_this_machine", "pantry.md", Mode::Loopback, &[], "", &[]);
}

#[test]
fn the_guide_for_pantry_with_tls() {
    walk(
        "the_guide_for_pantry_with_tls",
        "pantry.md",
        Mode::Tls,
        &[],
        "",
        &[
            "pantry --ca ca.pem login pantry.example:7721 --username ada --password-stdin <<< wrong",
            "pantry --ca ca.pem pull pantry.example:7721/local/team/app:1 refused",
            "pantry pull pantry.example:7721/local/public/app:1 refused",
        ],
    );
}

#[test]
fn the_guide_for_running_anything_in_a_jail() {
    let before = format!("export PANTRY_BUNDLE_LAYOUT={}\n", bundle().display());
    walk("the_guide_for_running_anything_in_a_jail", "run.md", Mode::Loopback, &[], &before, &[]);
}

/// Clients that Debian has not: the program, its page, what makes it ready, and what it must not get.
const OTHERS: [(&str, &str, &str, &[&str]); 4] = [
    ("crane", "crane.md", "", &["crane digest pantry.example:7721/local/team/copy:1"]),
    ("regctl", "regctl.md", "", &["regctl image digest pantry.example:7721/local/team/app:1"]),
    (
        "helm",
        "helm.md",
        CHART,
        &["helm show chart oci://pantry.example:7721/local/team/charts/greeter --ca-file ca.pem"],
    ),
    (
        "oras",
        "oras.md",
        "echo hello > hello.txt\n",
        &["oras pull --ca-file ca.pem pantry.example:7721/local/team/files:1"],
    ),
];

/// A chart with one value in it.
const CHART: &str = r"
mkdir -p greeter/templates
printf 'apiVersion: v2\nname: greeter\nversion: 1.2.3\n' > greeter/Chart.yaml
echo 'greeting: hello' > greeter/values.yaml
printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  said: {{ .Values.greeting }}\n' \
    > greeter/templates/said.yaml
";

#[test]
fn the_guides_for_clients_that_debian_lacks() {
    let test = "the_guides_for_clients_that_debian_lacks";
    let (there, missing): (Vec<_>, Vec<_>) = OTHERS.into_iter().partition(|(program, ..)| on_path(program));
    for (program, page, before, refused) in there {
        walk(test, page, Mode::Loopback, &[program], before, &[]);
        walk(test, page, Mode::Tls, &[program], before, refused);
    }
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.iter().map(|(program, ..)| *program).collect();
        skip(test, &format!("not installed: {}", missing.join(", ")));
    }
}

#[test]
fn the_fingerprint_is_told_as_the_guide_says() {
    walk("the_fingerprint_is_told_as_the_guide_says", "README.md", Mode::Tls, &["openssl"], "", &[]);
}

#[test]
fn every_page_is_listed_and_walked() {
    let folder = checkout().join("docs/guides");
    let list = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let walks = std::fs::read_to_string(checkout().join("tests/appliance/guides.rs")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || list.contains(&format!("({name})")), "{name} is not listed");
        assert!(walks.contains(&format!("\"{name}\"")), "{name} is not walked");
        let text = std::fs::read_to_string(checkout().join("docs/guides").join(&name)).unwrap();
        for info in text.lines().filter_map(|line| line.strip_prefix("```sh ")) {
            assert!(["loopback", "tls", "server"].contains(&info), "{name}: {info}");
        }
    }
}
