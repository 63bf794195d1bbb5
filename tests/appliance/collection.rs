//! Collection, verification and repair of the real server: what nobody wants goes, nothing else does, whatever happens
//! meanwhile.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::support::{Server, Start, digest, fresh_root, http, show, until};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Nothing is collected by itself.
const BY_HAND: (&str, &str) = ("PANTRY_STORAGE_COLLECT_EVERY_SECONDS", "0");

/// Bytes that no other seed gives, too many to stand in the state file.
fn layer(seed: u64) -> Vec<u8> {
    (0..10_000_u64)
        .flat_map(|at| Sha256::digest((seed * 10_000 + at / 100).to_le_bytes()).into_iter().take(6))
        .collect()
}

/// Pushes a blob; the status of the last answer.
fn try_push_blob(server: &Server, repository: &str, bytes: &[u8]) -> reqwest::Result<u16> {
    let url = format!("{}/v2/{repository}/blobs/uploads/?digest={}", server.url, digest(bytes));
    Ok(http().post(url).body(bytes.to_vec()).send()?.status().as_u16())
}

fn manifest(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|bytes| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(bytes), "size": bytes.len()}))
        .collect();
    serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": config.len()},
        "layers": layers,
    }))
    .unwrap()
}

fn put_manifest(server: &Server, repository: &str, tag: &str, bytes: &[u8]) -> reqwest::Result<u16> {
    let url = format!("{}/v2/{repository}/manifests/{tag}", server.url);
    let put = http().put(url).header("Content-Type", IMAGE).body(bytes.to_vec()).send()?;
    Ok(put.status().as_u16())
}

/// Pushes an image; its manifest's digest.
fn push(server: &Server, repository: &str, tag: &str, config: &[u8], layers: &[&[u8]]) -> String {
    for bytes in layers.iter().copied().chain([config]) {
        assert_eq!(try_push_blob(server, repository, bytes).unwrap(), 201);
    }
    let manifest = manifest(config, layers);
    assert_eq!(put_manifest(server, repository, tag, &manifest).unwrap(), 201);
    digest(&manifest)
}

fn delete(server: &Server, repository: &str, digest: &str) {
    let url = format!("{}/v2/{repository}/manifests/{digest}", server.url);
    assert_eq!(http().delete(url).send().unwrap().status(), 202);
}

fn pulls(server: &Server, repository: &str, bytes: &[u8]) -> bool {
    let url = format!("{}/v2/{repository}/blobs/{}", server.url, digest(bytes));
    let answer = http().get(url).send().unwrap();
    if answer.status() == 404 {
        return false;
    }
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.bytes().unwrap(), bytes);
    true
}

/// The files of blobs.
fn files(server: &Server) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for folder in std::fs::read_dir(server.root.join("blobs/sha256")).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            found.insert(file.unwrap().path());
        }
    }
    found
}

fn file_of(server: &Server, bytes: &[u8]) -> PathBuf {
    let hex = digest(bytes).replace("sha256:", "");
    server.root.join("blobs/sha256").join(&hex[..2]).join(hex)
}

/// Collects, after what is under way.
fn gc(server: &Server, arguments: &[&str]) -> Value {
    let all = [&["gc", "--output", "json"], arguments].concat();
    let began = Instant::now();
    loop {
        let output = server.pantry(&all);
        if output.status.code() == Some(6) && began.elapsed() < Duration::from_mins(1) {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        assert!(output.status.success(), "{}", show(&output));
        return serde_json::from_slice(&output.stdout).unwrap();
    }
}

#[test]
fn what_a_deleted_image_held_goes_and_nothing_else() {
    let server = Server::start_with(&[BY_HAND]);
    let before = files(&server);
    let (shared, own, orphan) = (layer(1), layer(2), layer(3));
    let doomed = push(&server, "local/app", "old", b"{\"a\":1}", &[&shared, &own]);
    push(&server, "local/app", "new", b"{\"a\":2}", &[&shared]);
    push(&server, "local/other", "one", b"{\"a\":3}", &[&own]);
    assert_eq!(try_push_blob(&server, "local/app", &orphan).unwrap(), 201);
    // A push that never came to its manifest is young: it stays as long as the grace.
    assert_eq!(gc(&server, &[])["found"], 0);
    delete(&server, "local/app", &doomed);
    assert_eq!(gc(&server, &[])["found"], 0);

    let told = gc(&server, &["--dry-run", "--grace", "0"]);
    assert_eq!(told["dry_run"], true);
    let lines = told["lines"].to_string();
    assert!(lines.contains(&digest(&own)) && lines.contains(&digest(&orphan)), "{lines}");
    assert!(!lines.contains(&digest(&shared)), "{lines}");
    assert_eq!(files(&server).len(), before.len() + 3, "a dry run changes nothing");

    let done = gc(&server, &["--grace", "0"]);
    assert!(done["counts"]["blobs"].as_u64().unwrap() >= 3, "{done}");
    assert!(!file_of(&server, &orphan).exists(), "its bytes are gone");
    assert!(!pulls(&server, "local/app", &orphan) && !pulls(&server, "local/app", &own));
    assert!(pulls(&server, "local/other", &own), "another repository still has it");
    assert!(pulls(&server, "local/app", &shared), "another image still has it");
    assert_eq!(gc(&server, &["--grace", "0"])["found"], 0, "and then there is nothing to do");

    // What went comes back as if it had never been here.
    push(&server, "local/app", "again", b"{\"a\":1}", &[&shared, &own, &orphan]);
    assert!(pulls(&server, "local/app", &orphan) && pulls(&server, "local/app", &own));
    let audit = server.admin_get("/v1/audit?limit=200")["items"].to_string();
    assert!(audit.contains("storage.collection"), "{audit}");
    let output = server.pantry(&["repair"]);
    assert!(output.status.success(), "{}", show(&output));
}

#[test]
fn what_comes_after_its_manifest_is_kept_for_it_in_a_sparse_repository() {
    let server = Server::start_with(&[BY_HAND]);
    server.json(&["repo", "add", "mirror", "--sparse"]);
    let (config, first, late) = (b"{\"late\":2}", layer(20), layer(21));
    let image = manifest(config, &[&first, &late]);
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": IMAGE, "digest": digest(&image), "size": image.len()}],
    });
    let url = |what: &str| format!("{}/v2/mirror/app/{what}", server.url);
    let put = http().put(url("manifests/all")).header("content-type", index["mediaType"].as_str().unwrap());
    assert_eq!(put.body(index.to_string()).send().unwrap().status(), 201);
    assert_eq!(try_push_blob(&server, "mirror/app", &first).unwrap(), 201);
    let named = digest(&image);
    assert_eq!(put_manifest(&server, "mirror/app", &named, &image).unwrap(), 201);
    assert_eq!(try_push_blob(&server, "mirror/app", &late).unwrap(), 201);
    assert_eq!(try_push_blob(&server, "mirror/app", config).unwrap(), 201);
    let orphan = layer(22);
    assert_eq!(try_push_blob(&server, "mirror/app", &orphan).unwrap(), 201);
    gc(&server, &["--grace", "0"]);
    assert!(!pulls(&server, "mirror/app", &orphan), "nobody named it");
    for bytes in [&first[..], &late, config] {
        assert!(pulls(&server, "mirror/app", bytes), "the image names it");
    }
    let output = server.pantry(&["repair"]);
    assert!(output.status.success(), "{}", show(&output));
    // Retention knows of the child as well, though it has no tag and came after its index.
    server.json(&["repo", "set", "mirror", "--untagged-after", "1h"]);
    let told = server.json(&["repo", "retention", "mirror", "--dry-run"]).to_string();
    assert!(told.contains("in_index") && told.contains(&named), "{told}");
    // Its bytes go with the last manifest that names them.
    delete(&server, "mirror/app", &named);
    gc(&server, &["--grace", "0"]);
    assert!(!pulls(&server, "mirror/app", &late) && !file_of(&server, &late).exists());
}

#[test]
fn a_blob_that_was_asked_for_is_given_its_grace_again() {
    let server = Server::start_with(&[BY_HAND]);
    let old = layer(10);
    assert_eq!(try_push_blob(&server, "local/app", &old).unwrap(), 201);
    std::thread::sleep(Duration::from_millis(2_100));
    let url = format!("{}/v2/local/app/blobs/{}", server.url, digest(&old));
    assert_eq!(http().head(&url).send().unwrap().status(), 200);
    assert_eq!(gc(&server, &["--grace", "2"])["found"], 0, "who was told that it is here may name it");
    let config = b"{\"late\":1}";
    assert_eq!(try_push_blob(&server, "local/app", config).unwrap(), 201);
    assert_eq!(put_manifest(&server, "local/app", "late", &manifest(config, &[&old])).unwrap(), 201);
    gc(&server, &["--grace", "0"]);
    assert!(pulls(&server, "local/app", &old));
}

#[test]
fn pushes_pulls_and_deletes_go_on_under_a_collection_every_second() {
    let environment =
        [("PANTRY_STORAGE_COLLECT_EVERY_SECONDS", "1"), ("PANTRY_STORAGE_COLLECT_GRACE_SECONDS", "3")];
    let server = Server::start_with(&environment);
    let (stop, number) = (AtomicBool::new(false), AtomicU64::new(100));
    let kept: Vec<(String, Vec<u8>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let (server, stop, number) = (&server, &stop, &number);
                scope.spawn(move || {
                    let repository = format!("local/worker{worker}");
                    let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
                    while !stop.load(Ordering::SeqCst) {
                        let seed = number.fetch_add(1, Ordering::SeqCst);
                        let config = format!("{{\"seed\":{seed}}}");
                        // The same bytes again and again, as their last image has just gone, beside new ones.
                        let (again, new) = (layer(50 + seed % 3), layer(seed));
                        let digest = push(server, &repository, "x", config.as_bytes(), &[&again, &new]);
                        assert!(pulls(server, &repository, &again) && pulls(server, &repository, &new));
                        if seed.is_multiple_of(3) {
                            kept.push((repository.clone(), new));
                        } else {
                            delete(server, &repository, &digest);
                        }
                    }
                    kept
                })
            })
            .collect();
        let began = Instant::now();
        let collected = || server.pantry(&["changes"]).stdout;
        until("some collections", || {
            began.elapsed() > Duration::from_secs(12)
                && String::from_utf8_lossy(&collected()).contains("collection")
        });
        stop.store(true, Ordering::SeqCst);
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(kept.len() > 3, "{}", kept.len());
    for (repository, bytes) in &kept {
        assert!(pulls(&server, repository, bytes));
    }
    let changes = server.json(&["changes"])["items"].as_array().unwrap().len();
    assert!(changes <= 11, "changes of the schedule don't pile up: {changes}");
    gc(&server, &["--grace", "0"]);
    let output = server.pantry(&["verify"]);
    assert!(output.status.success(), "{}", show(&output));
    let output = server.pantry(&["repair"]);
    assert!(output.status.success(), "{}", show(&output));
    let found = files(&server);
    for (repository, bytes) in &kept {
        assert!(pulls(&server, repository, bytes) && found.contains(&file_of(&server, bytes)));
    }
}

/// Points of a collection, and how often each is passed before the process ends there.
const POINTS: &[&str] = &[
    "blobs.collect.before_condemn",
    "blobs.collect.after_condemn",
    "blobs.collect.before_unlink",
    "blobs.collect.before_unlink@2",
    "blobs.collect.after_unlink",
    "blobs.collect.after_forget",
    "changes.collection.run.before",
    "changes.collection.run.done",
    "changes.collection.run.recorded",
    "changes.collection.end.logged",
    "changes.collection.end.recorded",
];

#[test]
fn a_kill_at_any_point_of_a_collection_loses_nothing_that_is_kept_and_leaves_nothing_else() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    let base = {
        let server = Start { environment: &[BY_HAND], ..Start::default() }.on(&root);
        server.until_healthy();
        let base = files(&server).len();
        server.stop();
        base
    };
    for (seed, point) in (0_u64..).zip(POINTS) {
        let server = Start { environment: &[BY_HAND, ("PANTRY_FAULT", point)], ..Start::default() }.on(&root);
        let (kept, gone, more) = (layer(1_000 + seed), layer(2_000 + seed), layer(3_000 + seed));
        push(&server, "local/kept", &format!("t{seed}"), format!("{{\"kept\":{seed}}}").as_bytes(), &[&kept]);
        let doomed =
            push(&server, "local/gone", "t", format!("{{\"gone\":{seed}}}").as_bytes(), &[&gone, &more]);
        delete(&server, "local/gone", &doomed);
        let output = server.pantry(&["gc", "--grace", "0"]);
        assert!(!output.status.success(), "{point}: {}", show(&output));
        server.until_dead();
        drop(server);

        let server = Start { environment: &[BY_HAND], ..Start::default() }.on(&root);
        // Before anything else is done, one of those that may just be going is pushed again. The run from before has no
        // grace, so it may take blobs from under this push, which then says so and is repeated.
        let config = format!("{{\"more\":{seed}}}");
        until(&format!("{point}: a push comes through"), || {
            for bytes in [&more[..], config.as_bytes()] {
                assert_eq!(try_push_blob(&server, "local/kept", bytes).unwrap(), 201, "{point}");
            }
            let manifest = manifest(config.as_bytes(), &[&more]);
            let status = put_manifest(&server, "local/kept", &format!("m{seed}"), &manifest).unwrap();
            assert!(status == 201 || status == 400, "{point}: {status}");
            status == 201
        });
        until(&format!("{point}: the run from before goes on to its end"), || {
            let changes = server.json(&["changes"]);
            let of = |change: &&Value| change["kind"] == "collection";
            changes["items"].as_array().unwrap().iter().filter(of).all(|change| change["state"] == "done")
        });
        gc(&server, &["--grace", "0"]);
        assert!(pulls(&server, "local/kept", &kept) && pulls(&server, "local/kept", &more), "{point}");
        assert!(!file_of(&server, &gone).exists(), "{point}");
        let expected = base + 2 * (usize::try_from(seed).unwrap() + 1);
        assert_eq!(files(&server).len(), expected, "{point}: nothing else is left");
        assert_eq!(gc(&server, &["--grace", "0"])["found"], 0, "{point}");
        server.stop();
    }
}

#[test]
fn a_flipped_bit_is_found_set_aside_told_and_healed_by_a_push() {
    let server = Server::start_with(&[BY_HAND]);
    let (rotten, sound) = (layer(20), layer(21));
    let image = push(&server, "local/app", "v1", b"{\"a\":1}", &[&rotten, &sound]);
    let output = server.pantry(&["verify"]);
    assert!(output.status.success(), "{}", show(&output));
    let path = file_of(&server, &rotten);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30_000] ^= 1;
    let mut writable = std::fs::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut writable, 0o644);
    std::fs::set_permissions(&path, writable).unwrap();
    std::fs::write(&path, &bytes).unwrap();

    let output = server.pantry(&["verify"]);
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains(&digest(&rotten)) && told.contains("local/app:v1"), "{told}");
    let hex = digest(&rotten).replace("sha256:", "");
    assert_eq!(std::fs::read(server.root.join("quarantine").join(&hex)).unwrap(), bytes);
    let listed = server.admin_get("/v1/damaged-blobs");
    assert_eq!(listed["items"][0]["digest"], digest(&rotten).as_str());
    assert_eq!(listed["items"][0]["manifests"][0]["repository"], "local/app");
    assert_eq!(listed["items"][0]["manifests"][0]["digest"], image.as_str());
    assert_eq!(listed["items"][0]["manifests"][0]["tags"], json!(["v1"]));

    assert!(!pulls(&server, "local/app", &rotten), "a pull fails, and gives no rotten byte");
    let url = format!("{}/v2/local/app/blobs/{}", server.url, digest(&rotten));
    assert_eq!(http().head(&url).send().unwrap().status(), 404, "so that a client pushes it again");
    assert!(pulls(&server, "local/app", &sound));
    let again = manifest(b"{\"a\":1}", &[&rotten]);
    assert_eq!(put_manifest(&server, "local/app", "v2", &again).unwrap(), 400, "nothing new may name it");

    push(&server, "local/app", "v1", b"{\"a\":1}", &[&rotten, &sound]);
    assert!(pulls(&server, "local/app", &rotten));
    let output = server.pantry(&["verify"]);
    assert!(output.status.success(), "{}", show(&output));
    assert_eq!(server.admin_get("/v1/damaged-blobs")["items"], json!([]));
}

#[test]
fn repair_tells_what_does_not_fit_and_changes_nothing_until_it_is_told_to() {
    let server = Server::start_with(&[BY_HAND]);
    let (lost, sound) = (layer(30), layer(31));
    push(&server, "local/app", "v1", b"{\"a\":1}", &[&lost, &sound]);
    for arguments in [&["repair"][..], &["repair", "--apply"]] {
        let output = server.pantry(arguments);
        assert!(output.status.success(), "a healthy store: {}", show(&output));
    }
    std::fs::remove_file(file_of(&server, &lost)).unwrap();
    for _ in 0..2 {
        let output = server.pantry(&["repair"]);
        assert_eq!(output.status.code(), Some(4), "{}", show(&output));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains("bytes_missing") && told.contains(&digest(&lost)), "{told}");
        assert!(told.contains("bytes missing 1"), "{told}");
    }
    let output = server.pantry(&["repair", "--apply"]);
    assert!(output.status.success(), "{}", show(&output));
    let output = server.pantry(&["repair"]);
    assert!(output.status.success(), "{}", show(&output));
    assert_eq!(server.admin_get("/v1/damaged-blobs")["items"][0]["damage"], "missing");
    assert!(!pulls(&server, "local/app", &lost) && pulls(&server, "local/app", &sound));
    assert_eq!(try_push_blob(&server, "local/app", &lost).unwrap(), 201);
    assert!(pulls(&server, "local/app", &lost));
}

fn keep_one(server: &Server) {
    let set = server.pantry(&["repo", "set", "local", "--keep-last", "1"]);
    assert!(set.status.success(), "{}", show(&set));
}

fn has_tag(server: &Server, repository: &str, tag: &str) -> bool {
    http().head(format!("{}/v2/{repository}/manifests/{tag}", server.url)).send().unwrap().status() == 200
}

#[test]
fn a_dry_run_tells_what_retention_would_remove() {
    let server = Server::start_with(&[BY_HAND]);
    push(&server, "local/app", "v1", b"{\"a\":1}", &[b"1"]);
    push(&server, "local/app", "v2", b"{\"a\":2}", &[b"2"]);
    keep_one(&server);
    let told = gc(&server, &["--dry-run"]);
    assert_eq!((&told["counts"]["tags"], &told["found"]), (&json!(1), &json!(1)), "{told}");
    assert_eq!(told["lines"], json!(["local/app:v1: no rule keeps it"]));
    assert!(has_tag(&server, "local/app", "v1"), "a dry run changes nothing");
    assert_eq!(gc(&server, &[])["counts"]["tags"], 1);
    assert!(!has_tag(&server, "local/app", "v1") && has_tag(&server, "local/app", "v2"));
}

/// Once the schedule removed the first of it while it looked whether there was anything to do: no change told of it.
#[test]
fn what_retention_removes_by_the_schedule_is_in_the_report_of_a_change() {
    let server = Server::start_with(&[("PANTRY_STORAGE_COLLECT_EVERY_SECONDS", "1")]);
    push(&server, "local/app", "v1", b"{\"a\":1}", &[b"1"]);
    push(&server, "local/app", "v2", b"{\"a\":2}", &[b"2"]);
    keep_one(&server);
    until("the tag is gone", || !has_tag(&server, "local/app", "v1"));
    until("a report tells so", || {
        let changes: Value = server.json(&["changes"]);
        let ids = changes["items"].as_array().unwrap().clone();
        ids.iter().any(|change| {
            let url = format!("{}/v1/reports/{}", server.url, change["id"].as_str().unwrap());
            let report = http().get(url).bearer_auth(server.token()).send().unwrap();
            report.status() == 200 && report.json::<Value>().unwrap()["counts"]["tags"] == 1
        })
    });
}
