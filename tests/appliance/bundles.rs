//! Where a server's bundle comes from: this machine's programs, or the executable itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::accounts::Account;
use super::support::{PANTRY, Server, Start, bundle, checkout, has, show, skip};

/// pip and its configuration, set so that no index can be reached.
pub const NO_INDEX: &[(&str, &str)] = &[
    ("PIP_INDEX_URL", "http://127.0.0.1:9/simple"),
    ("PIP_EXTRA_INDEX_URL", ""),
    ("PIP_FIND_LINKS", ""),
    ("PIP_CONFIG_FILE", "/dev/null"),
    ("PIP_NO_CACHE_DIR", "1"),
    ("PIP_RETRIES", "0"),
    ("UV_OFFLINE", "1"),
];

/// The uv of the bundle, for a machine that has none of its own.
fn uv(folder: &Path) -> PathBuf {
    let root = Account::Caller.fresh_root();
    let trees = std::fs::read_dir(root.path().join("root/trees")).unwrap().flatten();
    let program = trees.map(|tree| tree.path().join("usr/bin/uv")).find(|path| path.exists()).unwrap();
    let to = folder.join("path/uv");
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    super::accounts::copy(&program, &to);
    to
}

fn publishes(server: &Server) {
    let submission = server.submit(&checkout().join("examples/greeter"));
    assert_eq!(submission["state"], "published", "{submission:#}\n{}", server.log());
    let output = server.pantry(&["install", "greeter"]);
    assert!(output.status.success(), "{}", show(&output));
    let run = server.run_installed("greet", &["ada"]);
    assert!(run.status.success() && show(&run).contains("Ada"), "{}", show(&run));
}

#[test]
fn without_a_bundle_one_is_assembled_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let program = uv(folder.path());
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", program.parent().unwrap().display());
    let mut environment = vec![("PATH", path.as_str()), ("PANTRY_LISTEN", "127.0.0.1:0")];
    environment.extend(NO_INDEX);
    let start = Start { bare: true, environment: &environment, ..Start::default() };
    let server = start.on(&root);
    assert!(server.whole_log().contains("no bundle is embedded"), "{}", server.log());
    let status = server.json(&["status"]);
    assert_eq!(status["posture"]["bundle"], "assembled-from-host", "{status}");
    server.until_healthy();
    publishes(&server);
    server.until_nothing_is_left("at the end");
    server.stop();
    let kept = |root: &Path| std::fs::metadata(root.join("bundle/index.json")).unwrap().modified().unwrap();
    let first = kept(&root);
    // The second start needs neither uv nor an index.
    let bare = [("PATH", "/usr/bin:/bin"), ("PANTRY_LISTEN", "127.0.0.1:0")];
    let server = Start { environment: &bare, ..start }.on(&root);
    let again = server.json(&["status"]);
    assert_eq!(again["posture"], status["posture"]);
    assert_eq!(kept(&root), first, "it was assembled anew");
    assert_eq!(server.whole_log().matches("no bundle is embedded").count(), 1);
    server.stop();
}

#[test]
fn without_uv_and_without_an_index_the_server_says_what_it_needs() {
    if has("/usr/bin/uv") {
        return skip(
            "without_uv_and_without_an_index_the_server_says_what_it_needs",
            "this machine has a uv of its own",
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let mut environment = vec![("PATH", "/usr/bin:/bin"), ("PANTRY_LISTEN", "127.0.0.1:0")];
    environment.extend(NO_INDEX);
    let refused = Start { bare: true, environment: &environment, ..Start::default() }.try_on(&root);
    let refused = refused.map(|_| ()).unwrap_err();
    assert!(refused.contains("[rootfs_uv_unavailable]") && refused.contains("hint:"), "{refused}");
    assert!(!root.join("bundle").exists());
}

/// The program under test with the shared bundle inside.
fn one_file(folder: &Path) -> PathBuf {
    let out = folder.join("pantry");
    let embedded = Command::new(PANTRY)
        .args(["rootfs", "embed", "--layout"])
        .arg(bundle())
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(embedded.status.success(), "{}", show(&embedded));
    out
}

const BARE: &[(&str, &str)] = &[("PANTRY_LISTEN", "127.0.0.1:0"), ("PATH", "/usr/bin:/bin")];

#[test]
fn one_file_serves_from_the_bundle_inside() {
    let folder = tempfile::tempdir().unwrap();
    let program = one_file(folder.path());
    let start = Start { bare: true, program: Some(&program), environment: BARE, ..Start::default() };
    let server = start.on(&folder.path().join("root"));
    let status = server.json(&["status"]);
    assert_eq!(status["posture"]["bundle"], "embedded", "{status}");
    assert!(!server.root.join("bundle").exists(), "nothing is assembled");
    server.until_healthy();
    publishes(&server);
    server.stop();
    // The wrapper starts the very file.
    let run = server.run_installed("greet", &["ada"]);
    assert!(run.status.success(), "{}", show(&run));
}

#[test]
fn a_file_whose_bundle_was_altered_or_cut_is_refused_before_use() {
    let folder = tempfile::tempdir().unwrap();
    let program = one_file(folder.path());
    let bytes = std::fs::read(&program).unwrap();
    let layers = layers_in(&program);
    let damaged = folder.path().join("damaged");
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        std::fs::set_permissions(&damaged, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let root = folder.path().join(format!("root-{what}"));
        let start = Start { bare: true, program: Some(&damaged), environment: BARE, ..Start::default() };
        let said = start.try_on(&root).map_or_else(|said| said, |_| format!("{what} was not found"));
        let trees = std::fs::read_dir(root.join("trees")).into_iter().flatten().flatten();
        let unpacked: Vec<_> = trees.map(|entry| entry.file_name()).filter(|name| name != ".lock").collect();
        assert!(unpacked.is_empty(), "{what}: {unpacked:?} was unpacked; {said}");
        assert!(!root.join("bundle").exists(), "{what}: another bundle was made instead");
        said
    };
    for (number, (start, size)) in layers.iter().enumerate() {
        let mut altered = bytes.clone();
        altered[start + size / 2] ^= 1;
        let said = refused(&altered, &format!("altered-layer-{number}"));
        assert!(
            said.contains("[rootfs_payload_altered]") && said.contains("hint:"),
            "layer {number}: {said}"
        );
    }
    for (number, length) in [bytes.len() - 1, bytes.len() - 20_000_000].into_iter().enumerate() {
        let said = refused(&bytes[..length], &format!("cut-{number}"));
        assert!(said.contains("[rootfs_payload_cut]") && said.contains("hint:"), "cut to {length}: {said}");
    }
}

/// Where each layer lies in the file, and how long it is.
fn layers_in(program: &Path) -> Vec<(usize, usize)> {
    let script = r#"
import json, os, sys
layout, program = sys.argv[1:]
def read(digest):
    with open(layout + "/blobs/" + digest.replace(":", "/"), "rb") as file: return file.read()
index = json.load(open(layout + "/index.json"))
manifest = json.loads(read(index["manifests"][0]["digest"]))
whole = open(program, "rb").read()
for layer in manifest["layers"]:
    data = read(layer["digest"])
    at = whole.find(data)
    if at < 0: sys.exit("a layer isn't in the file")
    print(at, len(data))
"#;
    let output =
        Command::new("/usr/bin/python3").args(["-c", script]).arg(bundle()).arg(program).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            line.split_once(' ').map(|(at, size)| (at.parse().unwrap(), size.parse().unwrap())).unwrap()
        })
        .collect()
}
