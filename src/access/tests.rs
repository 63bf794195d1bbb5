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
            token_key: vec![7; 32],
            token_life: Duration::from_mins(5),
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
    for wrong in ["", "pty_", &token[1..], &token.to_uppercase(), &format!("{token}x"), &format!("{token}\n")]
    {
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

async fn user(world: &World, who: &str, password: &str) {
    let new = NewUser { name: name(who), password: Some(password.to_owned()), role: Role::Nobody };
    world.access.create_user(&root(), new).await.unwrap();
}

async fn login(world: &World, user: &str, password: &str) -> Result<Principal, Refused> {
    world.access.identify(Shown::Basic { user, password }, None).await
}

fn repo(text: &str) -> crate::names::RepoName {
    crate::names::RepoName::parse(text).unwrap()
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

#[tokio::test]
async fn a_password_counts_until_it_is_changed_or_its_user_is_gone() {
    let world = World::new(Mode::Token).await;
    user(&world, "ann", "first password").await;
    assert_eq!(login(&world, "ann", "first password").await.unwrap().label(), "user:ann");
    let computed = world.access.login_counts().passed;
    login(&world, "ann", "first password").await.unwrap();
    assert_eq!(world.access.login_counts().passed, computed, "the second time nothing is computed");
    let ann = login(&world, "ann", "first password").await.unwrap();
    let change = UserChange { password: Some("second password".to_owned()), ..UserChange::default() };
    world.access.update_user(&ann, &name("ann"), change).await.unwrap();
    assert_eq!(
        login(&world, "ann", "first password").await,
        Err(Refused::Wrong),
        "what was remembered is void"
    );
    login(&world, "ann", "second password").await.unwrap();
    let off = |disabled| UserChange { disabled: Some(disabled), ..UserChange::default() };
    world.access.update_user(&root(), &name("ann"), off(true)).await.unwrap();
    assert_eq!(login(&world, "ann", "second password").await, Err(Refused::Wrong));
    world.access.update_user(&root(), &name("ann"), off(false)).await.unwrap();
    login(&world, "ann", "second password").await.unwrap();
    world.access.delete_user(&root(), &name("ann")).await.unwrap();
    assert_eq!(login(&world, "ann", "second password").await, Err(Refused::Wrong));
    let actions: Vec<&str> = world.events.lock().unwrap().iter().map(|event| event.action).collect();
    for action in ["access.user.create", "access.user.change", "access.user.delete", "access.login"] {
        assert!(actions.contains(&action), "{action}");
    }
    let told = format!("{:?}", world.events.lock().unwrap());
    assert!(!told.contains("first password") && !told.contains("second password"));
}

#[tokio::test]
async fn a_disabled_users_api_tokens_rest_and_what_was_given_out_ends() {
    let world = World::new(Mode::Token).await;
    user(&world, "ann", "the password").await;
    let ann = login(&world, "ann", "the password").await.unwrap();
    let new = NewToken {
        owner: name("ann"),
        name: name("laptop"),
        expires_in: None,
        scopes: Vec::new(),
        role: None,
    };
    let made = world.access.create_token(&ann, new).await.unwrap();
    let resolve = |name: &str| crate::names::RepoName::parse(name).ok();
    let issued = world.access.issue(&ann, &AskedScope::parse_all([]), resolve, true).unwrap();
    let counts = || {
        let refreshed = world.access.refreshed(issued.refresh.as_deref().unwrap());
        (world.access.token(&made.secret).is_some(), refreshed.is_some())
    };
    assert_eq!(counts(), (true, true));
    let off = |disabled| UserChange { disabled: Some(disabled), ..UserChange::default() };
    world.access.update_user(&root(), &name("ann"), off(true)).await.unwrap();
    assert_eq!(counts(), (false, false));
    world.access.update_user(&root(), &name("ann"), off(false)).await.unwrap();
    assert_eq!(counts(), (true, false), "an API token ends by being revoked, or with its user");
}

#[tokio::test]
async fn who_is_wrong_too_often_is_limited_and_who_was_right_is_not() {
    let world = World::new(Mode::Token).await;
    user(&world, "ann", "the password").await;
    login(&world, "ann", "the password").await.unwrap();
    let attempts = (0..8).map(|one| {
        let access = world.access.clone();
        async move {
            let password = format!("wrong {one}");
            access.identify(Shown::Basic { user: "ann", password: &password }, None).await
        }
    });
    let began = std::time::Instant::now();
    for outcome in futures_util::future::join_all(attempts).await {
        assert_eq!(outcome, Err(Refused::Wrong));
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "failures are delayed");
    let limited = login(&world, "ann", "wrong again").await;
    assert!(matches!(limited, Err(Refused::TooMany { .. })), "{limited:?}");
    // Neither a password that is known to be right nor an API token is in the way of it.
    login(&world, "ann", "the password").await.unwrap();
    world.clock.advance(Duration::from_mins(6));
    assert!(login(&world, "ann", "the password").await.is_ok(), "forgiven by the minute");
    let counts = world.access.login_counts();
    assert_eq!((counts.wrong, counts.limited), (8, 1));
}

#[tokio::test]
async fn what_is_written_is_there_after_a_start_and_what_is_deleted_is_gone_with_all_it_had() {
    let world = World::new(Mode::Token).await;
    user(&world, "ann", "the password").await;
    let (access, by) = (&world.access, root());
    let pull = Rights::of(&[Right::Pull]);
    let team = UserChange { groups: Some(vec![name("team")]), ..UserChange::default() };
    access.update_user(&by, &name("ann"), team).await.unwrap();
    access.grant(&by, &Subject::User(name("ann")), &pattern("local/own"), Rights::ALL).await.unwrap();
    access.grant(&by, &Subject::Group(name("team")), &pattern("local/team"), pull).await.unwrap();
    let new = NewToken {
        owner: name("ann"),
        name: name("ci"),
        expires_in: Some(Duration::from_hours(1)),
        scopes: vec![Scope { pattern: pattern("local"), rights: pull }],
        role: None,
    };
    let made = access.create_token(&by, new.clone()).await.unwrap();
    assert_eq!(access.create_token(&by, new).await.err().unwrap().code(), "token_exists");
    let World { folder, access, .. } = world;
    access.0.state.close().await.unwrap();
    drop(access);
    let bytes = fs_err::read(folder.path().join("state.redb")).unwrap();
    for secret in [made.secret.as_bytes(), b"the password"] {
        assert!(!bytes.windows(secret.len()).any(|part| part == secret), "a secret lies in the state");
    }
    let world = World::on(folder, Mode::Token, None).await;
    let ann = login(&world, "ann", "the password").await.unwrap();
    assert!(ann.may_in(Right::Admin, &repo("local/own")) && ann.may_in(Right::Pull, &repo("local/team/x")));
    assert!(!ann.may_in(Right::Push, &repo("local/team/x")));
    let token = world.access.token(&made.secret).unwrap();
    assert!(token.may_in(Right::Pull, &repo("local/own")) && !token.may_in(Right::Push, &repo("local/own")));
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.access.token(&made.secret), None, "it has expired");
    world.access.delete_user(&root(), &name("ann")).await.unwrap();
    user(&world, "ann", "the password").await;
    let again = login(&world, "ann", "the password").await.unwrap();
    assert!(again.reach().is_empty() && world.access.tokens(None).is_empty());
    assert_eq!(world.access.user("ann").unwrap().groups, [""; 0]);
}

#[tokio::test]
async fn only_administrators_change_accounts_and_users_themselves() {
    let world = World::new(Mode::Token).await;
    user(&world, "ann", "the password").await;
    let ann = login(&world, "ann", "the password").await.unwrap();
    let token = |owner: &str| NewToken {
        owner: name(owner),
        name: name("t"),
        expires_in: None,
        scopes: Vec::new(),
        role: None,
    };
    let own = world.access.create_token(&ann, token("ann")).await.unwrap();
    let holder = world.access.token(&own.secret).unwrap();
    let password = || UserChange { password: Some("another one".to_owned()), ..UserChange::default() };
    let role = UserChange { role: Some(Role::Administrator), ..UserChange::default() };
    let anonymous = world.access.anonymous();
    let forbidden = |refused: AccessError| assert_eq!(refused.code(), "forbidden");
    forbidden(world.access.update_user(&ann, &name("ann"), role).await.unwrap_err());
    forbidden(world.access.update_user(&holder, &name("ann"), password()).await.unwrap_err());
    forbidden(world.access.create_token(&holder, token("ann")).await.err().unwrap());
    forbidden(world.access.create_token(&ann, token("bob")).await.err().unwrap());
    forbidden(world.access.delete_user(&ann, &name("ann")).await.unwrap_err());
    forbidden(world.access.revoke_token(&anonymous, &own.view.id).await.unwrap_err());
    let all = Pattern::All;
    forbidden(world.access.grant(&ann, &Subject::User(name("ann")), &all, Rights::ALL).await.unwrap_err());
    world.access.revoke_token(&holder, &own.view.id).await.unwrap();
    assert_eq!(world.access.token(&own.secret), None);
}

#[tokio::test]
async fn users_of_the_file_come_and_go_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("htpasswd");
    let hash = bcrypt::hash("file password", 4).unwrap();
    fs_err::write(&file, format!("fay:{hash}\n")).unwrap();
    let world = World::on(folder, Mode::Token, Some(&file)).await;
    let subject = Subject::User(name("fay"));
    world.access.grant(&root(), &subject, &pattern("local"), Rights::of(&[Right::Pull])).await.unwrap();
    let fay = login(&world, "fay", "file password").await.unwrap();
    assert!(fay.may_in(Right::Pull, &repo("local/a")));
    let change = world.access.update_user(&root(), &name("fay"), UserChange::default()).await.unwrap_err();
    assert_eq!(change.code(), "user_of_file");
    fs_err::write(&file, "").unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while world.access.user("fay").is_some() {
        assert!(std::time::Instant::now() < deadline, "the file is not read again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(login(&world, "fay", "file password").await, Err(Refused::Wrong), "also what was remembered");
}

#[tokio::test]
async fn a_bearer_is_worth_what_it_says_and_what_its_subject_may_now() {
    let world = World::new(Mode::Token).await;
    user(&world, "ann", "the password").await;
    let subject = Subject::User(name("ann"));
    let rights = Rights::of(&[Right::Pull, Right::Push]);
    world.access.grant(&root(), &subject, &pattern("local"), rights).await.unwrap();
    let ann = login(&world, "ann", "the password").await.unwrap();
    let texts = [
        "repository:local/a:pull,push,delete repository:host:5000/local/b:pull",
        "repository:packages/x:pull",
    ];
    let resolve = |name: &str| crate::names::RepoName::parse(name).ok();
    let issue = |who: &Principal, offline| {
        world.access.issue(who, &AskedScope::parse_all(texts), resolve, offline).unwrap()
    };
    let issued = issue(&ann, true);
    assert_eq!(issued.scope, "repository:local/a:pull,push repository:host:5000/local/b:pull");
    let bearer = |token: &str| world.access.bearer(token);
    let held = bearer(&issued.token).unwrap();
    assert_eq!((held.label().as_str(), held.may(Action::ReadStatus)), ("user:ann", false));
    assert!(held.may_in(Right::Push, &repo("local/a")) && held.may_in(Right::Pull, &repo("local/b")));
    assert!(!held.may_in(Right::Delete, &repo("local/a")) && !held.may_in(Right::Pull, &repo("local/a/c")));
    assert!(held.could_in(Right::Push, &repo("local/c")) && !held.could_in(Right::Pull, &repo("packages/x")));
    // Neither kind of token stands for the other, and no letter of it may be another.
    let refresh = issued.refresh.clone().unwrap();
    assert!(bearer(&refresh).is_none() && world.access.refreshed(&issued.token).is_none());
    let mut forged = issued.token.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    assert!(bearer(std::str::from_utf8(&forged).unwrap()).is_none());
    let none = issued.token.split('.').nth(1).unwrap();
    assert!(bearer(&format!("eyJhbGciOiJub25lIn0.{none}.")).is_none(), "unsigned");
    // Taking a right back counts at once; so does the end of the user's credentials.
    world.access.grant(&root(), &subject, &pattern("local"), Rights::of(&[Right::Pull])).await.unwrap();
    assert!(!bearer(&issued.token).unwrap().may_in(Right::Push, &repo("local/a")));
    let change = UserChange { password: Some("another one".to_owned()), ..UserChange::default() };
    world.access.update_user(&root(), &name("ann"), change).await.unwrap();
    assert!(bearer(&issued.token).is_none() && world.access.refreshed(&refresh).is_none());
    let ann = login(&world, "ann", "another one").await.unwrap();
    let later = issue(&ann, true);
    world.clock.advance(Duration::from_secs(299));
    assert!(bearer(&later.token).is_some());
    world.clock.advance(Duration::from_secs(1));
    assert!(bearer(&later.token).is_none(), "it has expired");
    assert_eq!(world.access.refreshed(&later.refresh.unwrap()).unwrap().label(), "user:ann");
    let nobody = issue(&world.access.anonymous(), true);
    assert!(nobody.refresh.is_none() && nobody.scope.is_empty());
    assert!(bearer(&nobody.token).unwrap().is_anonymous());
}

#[tokio::test]
async fn a_user_and_the_groups_change_in_one_step_or_not_at_all() {
    let world = World::new(Mode::Token).await;
    user(&world, "ann", "the password").await;
    let groups = |names: &[&str]| Some(names.iter().map(|text| name(text)).collect::<Vec<_>>());
    let change = |password: &str, names: &[&str]| UserChange {
        password: Some(password.to_owned()),
        role: Some(Role::Reader),
        groups: groups(names),
        ..UserChange::default()
    };
    let told = world
        .access
        .update_user(&root(), &name("ann"), change("a second one", &["dev", "ops"]))
        .await
        .unwrap();
    assert_eq!((told.role, told.groups), (Role::Reader, vec!["dev".to_owned(), "ops".to_owned()]));
    // What is wrong with one part keeps the others from being done.
    let refused = world.access.update_user(&root(), &name("ann"), change("x", &["qa"])).await.unwrap_err();
    assert_eq!(refused.code(), "password_invalid");
    assert_eq!(world.access.user("ann").unwrap().groups, ["dev", "ops"]);
    let only = UserChange { groups: groups(&["ops", "qa"]), ..UserChange::default() };
    let told = world.access.update_user(&root(), &name("ann"), only.clone()).await.unwrap();
    assert_eq!(told.groups, ["ops", "qa"]);
    let ann = login(&world, "ann", "a second one").await.unwrap();
    assert_eq!(world.access.update_user(&ann, &name("ann"), only).await.unwrap_err().code(), "forbidden");
    let counts = world.access.login_counts();
    assert_eq!((counts.accepted, counts.wrong), (1, 0));
    login(&world, "ann", "a second one").await.unwrap();
    assert_eq!(world.access.login_counts().accepted, 2, "also what was remembered");
}
