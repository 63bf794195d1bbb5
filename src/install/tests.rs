//! Installing and removing with the real engine, state and store; only the extractor is a plain call.

use std::sync::Arc;

use crate::access::{Grants, Mode, Principal, Role};
use crate::blobs::Blobs;
use crate::changes::{ChangeView, Changes, TaskSet};
use crate::names::{
    ChangeId, Digest, Faults, Millis, PackId, RepoName, SeededRandom, SystemClock, Tag, Version,
};
use crate::packs::{self, Base, BuildInput, PackCommand, PackInfo, PackType};
use crate::rootfs::LayerWriter;
use crate::state::State;
use crate::trees::{LayerRef, Trees};

use super::{InstallParts, Installer, Mended};

struct Fixture {
    root: tempfile::TempDir,
    state: State,
    blobs: Blobs,
    changes: Changes,
    installer: Installer,
    base: Base,
}

fn operator() -> Principal {
    Principal::Peer { uid: 0, gid: 0, role: Role::Administrator }
}

async fn fixture() -> Fixture {
    let fixture = idle_fixture().await;
    let mut tasks = TaskSet::new();
    fixture.installer.register(&mut tasks);
    fixture.changes.start(tasks);
    fixture
}

/// Everything, with an engine that does not run yet.
async fn idle_fixture() -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SeededRandom::new(7)));
    let state = State::open(&root.path().join("state.redb"), Faults::none()).unwrap();
    let blobs =
        Blobs::open(root.path(), state.clone(), clock.clone(), random.clone(), Faults::none()).await.unwrap();
    let changes = Changes::new(root.path(), state.clone(), blobs.clone(), clock.clone(), Faults::none());
    let parts = InstallParts {
        root: root.path().to_owned(),
        state: state.clone(),
        blobs: blobs.clone(),
        trees: Trees::unconfined(root.path(), blobs.clone()).unwrap(),
        changes: changes.clone(),
        clock,
        random,
        faults: Faults::none(),
    };
    let installer = Installer::with_program(parts, "/usr/bin/pantry".into());
    assert_eq!(installer.recover().await.unwrap(), Mended::default());
    let base = base(&state, &blobs).await;
    Fixture { root, state, blobs, changes, installer, base }
}

async fn base(state: &State, blobs: &Blobs) -> Base {
    let mut layer = LayerWriter::new(Vec::new());
    layer.directory("usr", 0o755).unwrap();
    let (bytes, digests) = layer.finish().unwrap();
    let stored = blobs.put(bytes.into()).await.unwrap();
    let kept = stored.clone();
    let owner = crate::blobs::Owner::new("test", "base");
    state.write(move |tx| crate::blobs::link(tx, &kept, &owner)).await.unwrap();
    Base {
        layer: LayerRef { digest: stored.digest, diff_id: Digest::parse(&digests.diff_id).unwrap() },
        size: stored.size,
        python_version: "3.11.2".to_owned(),
        platform: super::tasks::platform(),
    }
}

impl Fixture {
    async fn publish(&self, id: &str, version: &str, commands: &[&str]) -> (PackId, Version, Digest) {
        self.publish_with(id, version, commands, |_| ()).await
    }

    async fn publish_with(
        &self,
        id: &str,
        version: &str,
        commands: &[&str],
        change: impl FnOnce(&mut PackInfo),
    ) -> (PackId, Version, Digest) {
        let (id, version) = (PackId::parse(id).unwrap(), Version::parse(version).unwrap());
        let source = tempfile::tempdir().unwrap();
        fs_err::write(source.path().join("main.py"), format!("{id} {version}")).unwrap();
        let mut info = PackInfo {
            name: id.name.clone(),
            publisher: id.publisher.clone(),
            version: version.clone(),
            platform: self.base.platform.clone(),
            base: self.base.layer.diff_id.clone(),
            kind: PackType::Application,
            commands: commands
                .iter()
                .map(|name| PackCommand {
                    name: crate::names::CommandName::parse(name).unwrap(),
                    path: "/usr/bin/python3".to_owned(),
                    arguments: vec!["/opt/app/main.py".to_owned()],
                    description: String::new(),
                })
                .collect(),
            capabilities: Vec::new(),
            summary: "x".to_owned(),
            license: "MIT".to_owned(),
            artifacts: Vec::new(),
        };
        change(&mut info);
        let input = BuildInput {
            info,
            base: self.base.clone(),
            dependencies: None,
            source: source.path().to_owned(),
        };
        let blobs = self.blobs.clone();
        let built = tokio::task::spawn_blocking(move || packs::build(&blobs, &input)).await.unwrap().unwrap();
        let digest = built.manifest.digest.clone();
        let repo: RepoName = id.repository();
        let tag: Tag = version.tag();
        self.state
            .write(move |tx| packs::place(tx, Millis(1), &repo, &built, std::slice::from_ref(&tag)))
            .await
            .unwrap();
        (id, version, digest)
    }

    async fn install(&self, pack: &(PackId, Version, Digest)) -> ChangeView {
        let made = self.installer.install(pack.0.clone(), pack.1.clone(), pack.2.clone(), &operator()).await;
        self.ended(&made.unwrap()).await
    }

    async fn remove(&self, name: &str) -> ChangeView {
        let made = self.installer.remove(name, false, &operator()).await.unwrap();
        self.ended(&made).await
    }

    async fn ended(&self, change: &ChangeId) -> ChangeView {
        let deadline = std::time::Duration::from_secs(30);
        tokio::time::timeout(deadline, self.changes.until_ended(change)).await.unwrap().unwrap()
    }

    /// Wrappers and launch files.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for at in ["bin", "bin/.launch"] {
            let Ok(entries) = fs_err::read_dir(self.root.path().join(at)) else { continue };
            found.extend(
                entries
                    .map(|entry| format!("{at}/{}", entry.unwrap().file_name().to_string_lossy()))
                    .filter(|name| name != "bin/.launch"),
            );
        }
        found.sort();
        found
    }

    async fn installed(&self) -> Vec<String> {
        let list = self.installer.list().await.unwrap();
        list.into_iter()
            .map(|found| format!("{}/{} {} r{}", found.publisher, found.name, found.version, found.revision))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn install_update_and_remove_leave_exactly_what_they_should() {
    let fixture = fixture().await;
    let first = fixture.publish("acme/greeter", "1.0.0", &["greet", "old"]).await;
    let change = fixture.install(&first).await;
    assert_eq!(change.state, "done", "{change:?}");
    assert_eq!(fixture.installed().await, ["acme/greeter 1.0.0 r1"]);
    assert_eq!(fixture.files(), ["bin/.launch/greet", "bin/.launch/old", "bin/greet", "bin/old"]);
    let kept = fixture.state.read(|view| Installer::kept_trees(view)).await.unwrap();
    assert_eq!(kept.len(), 2);
    for chain in kept {
        assert!(fixture.root.path().join("trees").join(chain.hex()).is_dir());
    }

    let again = fixture.install(&first).await;
    assert_eq!(
        (again.state.as_str(), again.summary.as_str()),
        ("done", "acme/greeter 1.0.0 is already installed")
    );
    assert_eq!(fixture.installed().await, ["acme/greeter 1.0.0 r1"]);

    let second = fixture.publish("acme/greeter", "1.1.0", &["greet", "new"]).await;
    let change = fixture.install(&second).await;
    assert_eq!(
        (change.state.as_str(), change.summary.as_str()),
        ("done", "Update acme/greeter from 1.0.0 to 1.1.0")
    );
    assert_eq!(fixture.installed().await, ["acme/greeter 1.1.0 r2"]);
    assert_eq!(fixture.files(), ["bin/.launch/greet", "bin/.launch/new", "bin/greet", "bin/new"]);
    let launch = super::launch::Launch::read(
        &fixture.root.path().canonicalize().unwrap(),
        &crate::names::CommandName::parse("greet").unwrap(),
    )
    .unwrap();
    assert_eq!((launch.revision, launch.digest), (2, second.2));

    let change = fixture.remove("greeter").await;
    assert_eq!(change.state, "done", "{change:?}");
    assert!(fixture.installed().await.is_empty() && fixture.files().is_empty());
    assert!(fixture.state.read(|view| Installer::kept_trees(view)).await.unwrap().is_empty());
    let refused = fixture.installer.remove("greeter", false, &operator()).await.unwrap_err();
    assert_eq!(refused.code, "not_installed");
    fixture.changes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_belongs_to_one_pack() {
    let fixture = fixture().await;
    let first = fixture.publish("acme/a", "1.0.0", &["greet"]).await;
    let second = fixture.publish("acme/b", "1.0.0", &["greet", "more"]).await;
    fixture.install(&first).await;
    let change = fixture.install(&second).await;
    assert_eq!(change.state, "undone", "{change:?}");
    let error = change.error.unwrap();
    assert_eq!(error.code, "command_conflict");
    assert!(error.message.contains("acme/a") && error.message.contains("greet"), "{}", error.message);
    assert_eq!(fixture.installed().await, ["acme/a 1.0.0 r1"]);
    assert_eq!(fixture.files(), ["bin/.launch/greet", "bin/greet"]);
    fixture.remove("acme/a").await;
    assert_eq!(fixture.install(&second).await.state, "done");
    fixture.changes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_update_keeps_the_old_revision() {
    let fixture = fixture().await;
    let first = fixture.publish("acme/greeter", "1.0.0", &["greet"]).await;
    fixture.install(&first).await;
    fs_err::write(fixture.root.path().join("bin/new"), b"#!/bin/sh\n").unwrap();
    let second = fixture.publish("acme/greeter", "2.0.0", &["greet", "new"]).await;
    let change = fixture.install(&second).await;
    assert_eq!(
        (change.state.as_str(), change.error.unwrap().code.as_str()),
        ("undone", "wrapper_in_the_way")
    );
    assert_eq!(fixture.installed().await, ["acme/greeter 1.0.0 r1"]);
    assert_eq!(fixture.files(), ["bin/.launch/greet", "bin/greet", "bin/new"]);
    assert_eq!(fixture.installer.recover().await.unwrap(), Mended::default());
    fixture.changes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_installed_is_refused_with_its_code() {
    let fixture = fixture().await;
    let (id, version, digest) = fixture.publish("acme/greeter", "1.0.0", &["greet"]).await;
    let nobody = Principal::Anonymous { mode: Mode::None, grants: Grants::default() };
    let install = |id: &PackId, version: &str, digest: &Digest, by: Principal| {
        let (id, version, digest) = (id.clone(), Version::parse(version).unwrap(), digest.clone());
        let installer = fixture.installer.clone();
        async move { installer.install(id, version, digest, &by).await.unwrap_err().code }
    };
    assert_eq!(install(&id, "1.0.0", &digest, nobody.clone()).await, "forbidden");
    assert_eq!(fixture.installer.remove("greeter", false, &nobody).await.unwrap_err().code, "forbidden");
    assert_eq!(install(&id, "1.0.1", &digest, operator()).await, "pack_mismatch");
    let other = PackId::parse("evil/greeter").unwrap();
    assert_eq!(install(&other, "1.0.0", &digest, operator()).await, "pack_mismatch");
    assert!(!install(&id, "1.0.0", &Digest::of(b"unknown"), operator()).await.is_empty());
    let foreign =
        fixture.publish_with("acme/f", "1.0.0", &[], |info| info.platform = "linux/mips".into()).await;
    let greedy =
        fixture.publish_with("acme/g", "1.0.0", &[], |info| info.capabilities.push("ALL".into())).await;
    for (pack, code) in [(foreign, "platform_not_supported"), (greedy, "capability_not_supported")] {
        let change = fixture.install(&pack).await;
        assert_eq!((change.state.as_str(), change.error.unwrap().code.as_str()), ("undone", code));
    }
    assert!(fixture.files().is_empty() && fixture.installed().await.is_empty());
    let _ = version;
    fixture.changes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_change_is_refused_naming_the_first() {
    let fixture = idle_fixture().await;
    let (id, version, digest) = fixture.publish("acme/greeter", "1.0.0", &["greet"]).await;
    let first =
        fixture.installer.install(id.clone(), version.clone(), digest.clone(), &operator()).await.unwrap();
    let refused = fixture.installer.install(id, version, digest, &operator()).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.conflict), ("change_in_progress", Some(first.to_string())));
    assert!(refused.message.contains("package acme/greeter"), "{}", refused.message);
    // The same command of another package.
    let (id, version, digest) = fixture.publish("bee/other", "1.0.0", &["greet"]).await;
    let refused = fixture.installer.install(id, version, digest, &operator()).await.unwrap_err();
    assert!(refused.message.contains("command greet"), "{}", refused.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_two_publishers_have_to_be_told_apart() {
    let fixture = fixture().await;
    for (id, command) in [("acme/tool", "one"), ("bee/tool", "two")] {
        let pack = fixture.publish(id, "1.0.0", &[command]).await;
        assert_eq!(fixture.install(&pack).await.state, "done");
    }
    let refused = fixture.installer.remove("tool", false, &operator()).await.unwrap_err();
    assert_eq!(refused.code, "ambiguous_name");
    assert!(refused.message.contains("acme") && refused.message.contains("bee"));
    assert_eq!(fixture.remove("bee/tool").await.state, "done");
    assert_eq!(fixture.remove("tool").await.state, "done");
    assert!(fixture.files().is_empty());
    fixture.changes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_makes_files_and_records_agree() {
    let fixture = fixture().await;
    let pack = fixture.publish("acme/greeter", "1.0.0", &["greet"]).await;
    fixture.install(&pack).await;
    let bin = fixture.root.path().join("bin");
    fs_err::remove_file(bin.join("greet")).unwrap();
    // As a crash between the files and the record leaves it.
    let orphan = super::record::tests::installed("acme/orphan", &["orphan"]);
    super::folder::Folder::new(fixture.root.path(), "/usr/bin/pantry".into(), Faults::none())
        .write(&orphan)
        .unwrap();
    assert_eq!(fixture.installer.recover().await.unwrap(), Mended { written: 1, removed: 2 });
    assert_eq!(fixture.files(), ["bin/.launch/greet", "bin/greet"]);
    fixture.changes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_works_when_everything_of_the_pack_is_gone() {
    let fixture = fixture().await;
    let pack = fixture.publish("acme/greeter", "1.0.0", &["greet"]).await;
    fixture.install(&pack).await;
    fs_err::remove_dir_all(fixture.root.path().join("trees")).unwrap();
    fs_err::remove_dir_all(fixture.root.path().join("bin")).unwrap();
    fs_err::remove_dir_all(fixture.root.path().join("blobs")).unwrap();
    assert_eq!(fixture.remove("greeter").await.state, "done");
    assert!(fixture.installed().await.is_empty());
    fixture.changes.stop().await;
}
