//! Accounts over real records in a temporary root.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::names::{Faults, ManualClock, SystemRandom};

/// Access, the clock it goes by, and what it wrote to the audit log.
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) access: Access,
    pub(super) events: Arc<Mutex<Vec<Event>>>,
}

impl World {
    pub(super) async fn new(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::on(folder, mode, None).await
    }

    pub(super) async fn on(folder: tempfile::TempDir, mode: Mode, htpasswd: Option<&Path>) -> Self {
        let clock = Arc::new(ManualClock::at(Millis(1_700_000_000_000)));
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let seen = events.clone();
        let parts = AccessParts {
            state: State::open(&folder.path().join("state.redb"), Faults::none()).unwrap(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom),
            keys_dir: folder.path().join("keys"),
            mode,
            htpasswd: htpasswd.map(Path::to_owned),
            recorder: Arc::new(move |_, _, event| {
                seen.lock().unwrap().push(event.clone());
                Ok(())
            }),
        };
        let access = Access::open(parts).await.unwrap();
        Self { folder, clock, access, events }
    }
}

pub(super) fn root() -> Principal {
    Principal::Peer { uid: 0, gid: 0, role: Role::Administrator }
}

pub(super) fn name(text: &str) -> AccountName {
    AccountName::parse(text).unwrap()
}

#[tokio::test]
async fn the_token_is_made_once_and_only_it_matches() {
    let World { folder, access, .. } = World::new(Mode::Token).await;
    let text = fs_err::read_to_string(folder.path().join("keys/admin-token")).unwrap();
    let token = text.trim_end().to_owned();
    assert!(token.starts_with("pty_") && token.len() == 47, "{token}");
    assert_eq!(access.token(&token).unwrap().label(), "token:admin");
    assert!(!format!("{access:?}").contains(&token));
    access.0.state.close().await.unwrap();
    drop(access);
    let again = World::on(folder, Mode::Token, None).await.access;
    assert!(again.token(&token).is_some_and(|who| who.may(Action::Administer)));
    for wrong in ["", "pty_", &token[1..], &token.to_uppercase(), &format!("{token}x"), &format!("{token}\n")] {
        assert_eq!(again.token(wrong), None, "{wrong}");
    }
}

#[tokio::test]
async fn a_file_that_holds_no_token_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    AdminToken::load_or_create(&keys, &SystemRandom).unwrap();
    for content in ["admin", "pty_short", "pty_\n"] {
        fs_err::write(keys.join("admin-token"), content).unwrap();
        let Err(refused) = AdminToken::load_or_create(&keys, &SystemRandom) else { panic!("{content}") };
        assert!(matches!(refused, AccessError::NotAToken { .. }) && refused.hint().is_some());
    }
}

#[tokio::test]
async fn peers_have_their_roles() {
    let mut world = World::new(Mode::Token).await;
    let (group, passwd) = (world.folder.path().join("group"), world.folder.path().join("passwd"));
    fs_err::write(&group, "root:x:0:\npantry:x:990:ann,bob\n").unwrap();
    fs_err::write(&passwd, "root:x:0:0::/:\nann:x:1001:1001::/:\ncarl:x:1003:1003::/:\n").unwrap();
    let inner = Arc::get_mut(&mut world.access.0).unwrap();
    inner.groups = Groups::new(group, passwd);
    inner.daemon_uid = 500;
    for (uid, gid, role) in [
        (0, 0, Role::Administrator),
        (500, 500, Role::Administrator),
        (1001, 1001, Role::Installer),
        (1002, 990, Role::Installer),
        (1003, 1003, Role::Reader),
        (4_000_000_000, 4_000_000_000, Role::Reader),
    ] {
        assert_eq!(world.access.peer(uid, gid), Principal::Peer { uid, gid, role });
    }
}

#[tokio::test]
async fn nobody_known_may_what_the_mode_and_the_grants_say() {
    let repo = crate::names::RepoName::parse("local/a").unwrap();
    let open = World::new(Mode::None).await.access.anonymous();
    assert!(open.may_in(Right::Push, &repo) && !open.may_in(Right::Admin, &repo));
    let world = World::new(Mode::Token).await;
    assert!(!world.access.anonymous().may_in(Right::Pull, &repo));
    let pull = Rights::of(&[Right::Pull]);
    world.access.grant(&root(), &Subject::Anonymous, &Pattern::parse("local").unwrap(), pull).await.unwrap();
    let anonymous = world.access.anonymous();
    assert!(anonymous.may_in(Right::Pull, &repo) && !anonymous.may_in(Right::Push, &repo));
}
