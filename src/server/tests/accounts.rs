//! Challenges, the token service, and what is told to whom.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::access::{AccountName, NewUser, Pattern, Principal, Rights, Role, Subject, UserChange};

fn root() -> Principal {
    Principal::Peer { uid: 0, gid: 0, role: Role::Administrator }
}

fn account(text: &str) -> AccountName {
    AccountName::parse(text).unwrap()
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:password of {user}")))
}

impl World {
    /// A server that asks for credentials, with `local/a`, `local/secret` and what each user may: `ann` pulls and
    /// pushes `local/a`, `bob` pulls it, `eve` may nothing, everybody pulls `local/public`.
    async fn with_people() -> Self {
        let world = Self::with(Mode::Token).await;
        let new = |name: &str| NewUser {
            name: account(name),
            password: Some(format!("password of {name}")),
            role: Role::Nobody,
        };
        for name in ["ann", "bob", "eve"] {
            world.access.create_user(&root(), new(name)).await.unwrap();
        }
        world.grant("user:ann", "local/a", "pull,push").await;
        world.grant("user:bob", "local/a", "pull").await;
        world.grant("anonymous", "local/public", "pull").await;
        for repo in ["local/a", "local/secret", "local/public"] {
            world.as_admin_push(repo, "v1", repo.as_bytes()).await;
        }
        world
    }

    async fn grant(&self, subject: &str, pattern: &str, rights: &str) {
        let (subject, pattern) = (Subject::parse(subject).unwrap(), Pattern::parse(pattern).unwrap());
        self.access.grant(&root(), &subject, &pattern, Rights::parse(rights).unwrap()).await.unwrap();
    }

    fn admin(&self) -> String {
        let token = fs_err::read_to_string(self.folder.path().join("keys/admin-token")).unwrap();
        format!("Bearer {}", token.trim())
    }

    async fn ask(&self, method: Method, path: &str, authorization: &str) -> Answer {
        self.send(method, path, &[("authorization", authorization)], Body::empty()).await
    }

    async fn as_admin_push(&self, repo: &str, tag: &str, layer: &[u8]) {
        let admin = self.admin();
        for content in [b"{}".as_slice(), layer] {
            let path = format!("/v2/{repo}/blobs/uploads/?digest={}", Digest::of(content));
            self.send(Method::POST, &path, &[("authorization", &admin)], content.to_vec()).await.is(201);
        }
        let path = format!("/v2/{repo}/manifests/{tag}");
        let headers = [("authorization", admin.as_str()), ("content-type", IMAGE)];
        self.send(Method::PUT, &path, &headers, image(layer).to_string()).await.is(201);
    }

    /// A token for the scopes, as a header.
    async fn bearer(&self, authorization: Option<&str>, scopes: &[&str]) -> String {
        let query: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
        let path = format!("/v2/token?service=pantry&{}", query.join("&"));
        let answer = match authorization {
            Some(authorization) => self.ask(Method::GET, &path, authorization).await,
            None => self.get(&path).await,
        };
        format!("Bearer {}", answer.is(200).json()["token"].as_str().unwrap())
    }

    async fn form(&self, form: &str) -> Answer {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send(Method::POST, "/v2/token", &headers, form.to_owned()).await
    }
}

const A: &str = "/v2/local/a/manifests/v1";
const SECRET: &str = "/v2/local/secret/manifests/v1";
const PUBLIC: &str = "/v2/local/public/manifests/v1";

#[tokio::test]
async fn each_kind_of_caller_gets_its_answer() {
    let world = World::with_people().await;
    let (ann, bob, eve, admin) = (basic("ann"), basic("bob"), basic("eve"), world.admin());
    let bearer_of_bob = world.bearer(Some(&bob), &["repository:local/a:pull"]).await;
    let empty_of_bob = world.bearer(Some(&bob), &[]).await;
    let anonymous = world.bearer(None, &["repository:local/public:pull", "repository:local/a:pull"]).await;
    // Who, then: GET a, GET secret, GET public, PUT to a, PUT to secret, GET /v2/.
    for (who, statuses) in [
        ("", [401, 401, 200, 401, 401, 401]),
        (ann.as_str(), [200, 404, 200, 400, 404, 200]),
        (&bob, [200, 404, 200, 403, 404, 200]),
        (&eve, [404, 404, 200, 404, 404, 200]),
        (&admin, [200, 200, 200, 400, 400, 200]),
        (&bearer_of_bob, [200, 404, 401, 403, 404, 200]),
        (&empty_of_bob, [401, 404, 401, 403, 404, 200]),
        (&anonymous, [401, 401, 200, 401, 401, 200]),
        ("Bearer garbage", [401; 6]),
    ] {
        let mut found = Vec::new();
        for (method, path) in [
            (Method::GET, A),
            (Method::GET, SECRET),
            (Method::GET, PUBLIC),
            (Method::PUT, A),
            (Method::PUT, SECRET),
            (Method::GET, "/v2/"),
        ] {
            let answer = match who {
                "" => world.send(method, path, &[], Body::empty()).await,
                who => world.ask(method, path, who).await,
            };
            found.push(answer.status.as_u16());
            let challenged = answer.header("www-authenticate").starts_with("Bearer realm=");
            assert_eq!(challenged, answer.status == 401, "{who} {path}");
        }
        assert_eq!(found, statuses, "{who}");
    }
}

#[tokio::test]
async fn a_challenge_says_what_is_wrong_with_a_token() {
    let world = World::with_people().await;
    let challenge = async |path: &str, who: &str| {
        let answer = world.ask(Method::GET, path, who).await;
        answer.is(401).header("www-authenticate").to_owned()
    };
    let scope = "scope=\"repository:local/a:pull\"";
    let plain = world.get(A).await;
    assert!(plain.is(401).header("www-authenticate").ends_with(scope));
    assert_eq!(plain.code(), "UNAUTHORIZED");
    let narrow = world.bearer(Some(&basic("bob")), &["repository:local/public:pull"]).await;
    assert!(challenge(A, &narrow).await.ends_with(&format!("{scope},error=\"insufficient_scope\"")));
    let good = world.bearer(Some(&basic("bob")), &["repository:local/a:pull"]).await;
    world.ask(Method::GET, A, &good).await.is(200);
    // In the middle of a pull the token expires; the client is told so, gets another one and goes on.
    world.clock.advance(Duration::from_mins(5));
    assert!(challenge(A, &good).await.ends_with(&format!("{scope},error=\"invalid_token\"")));
    let blob = format!("/v2/local/a/blobs/{}", Digest::of(b"local/a"));
    assert!(challenge(&blob, &good).await.contains("error=\"invalid_token\""));
    let again = world.bearer(Some(&basic("bob")), &["repository:local/a:pull"]).await;
    world.ask(Method::GET, &blob, &again).await.is(200);
    assert!(challenge(A, "Bearer pty_unknown").await.contains("error=\"invalid_token\""));
    assert!(!challenge(A, &format!("Basic {}", STANDARD.encode("bob:wrong"))).await.contains("error="));
}

#[tokio::test]
async fn what_is_hidden_is_told_as_what_is_not_there() {
    let world = World::with_people().await;
    let eve = basic("eve");
    let bearer =
        world.bearer(Some(&eve), &["repository:local/secret:pull", "repository:local/nought:pull"]).await;
    let digest = Digest::of(b"local/secret");
    let hidden = Digest::of(image(b"local/secret").to_string().as_bytes());
    for who in [eve, bearer] {
        for (method, rest) in [
            (Method::GET, "manifests/v1".to_owned()),
            (Method::HEAD, "manifests/v1".to_owned()),
            (Method::GET, format!("manifests/{hidden}")),
            (Method::GET, format!("blobs/{digest}")),
            (Method::GET, "tags/list".to_owned()),
            (Method::GET, format!("referrers/{hidden}")),
            (Method::POST, "blobs/uploads/".to_owned()),
            (Method::PUT, "manifests/v1".to_owned()),
            (Method::DELETE, "manifests/v1".to_owned()),
            (Method::DELETE, format!("blobs/{digest}")),
        ] {
            let mut told = Vec::new();
            // The last one is not even in a repository that there is.
            for repo in ["local/secret", "local/nought", "elsewhere/it"] {
                let answer = world.ask(method.clone(), &format!("/v2/{repo}/{rest}"), &who).await;
                let body = String::from_utf8(answer.body.to_vec()).unwrap();
                let body = body.replace(repo, "<name>").replace(answer.header("x-request-id"), "<id>");
                let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
                names.sort_unstable();
                told.push((answer.status, body, names));
            }
            assert!(told[0] == told[1] && told[1] == told[2], "{method} {rest}: {told:?}");
        }
    }
}

#[tokio::test]
async fn the_token_service_grants_what_is_asked_and_allowed() {
    let world = World::with_people().await;
    let path = "/v2/token?service=pantry&scope=repository:local/a:pull,push&scope=repository:local/secret:pull\
                %20repository:local/public:*&scope=registry:catalog:*&offline_token=true&client_id=test";
    let answer = world.ask(Method::GET, path, &basic("bob")).await;
    let body = answer.is(200).json();
    assert_eq!(
        body["scope"], "repository:local/a:pull repository:local/public:pull registry:catalog:*",
        "{body}"
    );
    assert_eq!((body["token"] == body["access_token"], body["expires_in"].as_u64()), (true, Some(300)));
    assert_eq!(body["issued_at"], "2023-11-14T22:13:20.000Z");
    assert_eq!(answer.header("cache-control"), "no-store");
    let refresh = body["refresh_token"].as_str().unwrap();
    let exchanged = world
        .form(&format!(
            "grant_type=refresh_token&service=pantry&scope=repository:local/a:pull&refresh_token={refresh}"
        ))
        .await;
    let exchanged = exchanged.is(200).json();
    assert_eq!(
        (&exchanged["refresh_token"], &exchanged["scope"]),
        (&body["refresh_token"], &json!("repository:local/a:pull"))
    );
    let bearer = format!("Bearer {}", exchanged["access_token"].as_str().unwrap());
    world.ask(Method::GET, A, &bearer).await.is(200);
    let form = "grant_type=password&service=pantry&client_id=c&username=ann&password=password+of+ann&\
                access_type=offline&scope=repository:local/a:pull,push+repository:local/b:pull";
    let by_password = world.form(form).await.is(200).json();
    assert_eq!(by_password["scope"], "repository:local/a:pull,push");
    assert!(by_password["refresh_token"].is_string());
    // A changed password ends the refresh token, and the bearer made with it.
    let change = UserChange { password: Some("password of bob".to_owned()), ..UserChange::default() };
    world.access.update_user(&root(), &account("bob"), change).await.unwrap();
    world.form(&format!("grant_type=refresh_token&refresh_token={refresh}")).await.is(401);
    world.ask(Method::GET, A, &bearer).await.is(401);
    for (form, status) in [
        ("grant_type=password&username=ann&password=wrong", 401),
        ("grant_type=refresh_token&refresh_token=garbage", 401),
        ("grant_type=password&username=ann", 400),
        ("grant_type=client_credentials", 400),
        ("", 400),
        ("a=%ff", 400),
        (&"a".repeat(70_000), 413),
    ] {
        world.form(form).await.is(status);
    }
    let nothing = world
        .ask(Method::GET, "/v2/token?scope=repository:local/secret:pull&scope=x&scope=", &basic("eve"))
        .await;
    assert_eq!(nothing.is(200).json()["scope"], "");
    let bearer = world.bearer(Some(&basic("bob")), &[]).await;
    world.ask(Method::GET, "/v2/token?scope=repository:local/a:pull", &bearer).await.is(401);
    world.ask(Method::DELETE, "/v2/token", &basic("bob")).await.is(405);
}

#[tokio::test]
async fn the_catalogue_lists_what_the_caller_may_pull() {
    let world = World::with_people().await;
    for repo in ["local/a/below", "local/a-b", "local/z"] {
        world.as_admin_push(repo, "v1", b"x").await;
    }
    let list = async |who: &str, query: &str| {
        let answer = world.ask(Method::GET, &format!("/v2/_catalog{query}"), who).await;
        (answer.is(200).json()["repositories"].to_string(), answer.header("link").to_owned())
    };
    let all = r#"["local/a","local/a-b","local/a/below","local/public","local/secret","local/z"]"#;
    assert_eq!(list(&world.admin(), "").await.0, all);
    let bob = basic("bob");
    assert_eq!(list(&bob, "").await.0, r#"["local/a","local/a/below","local/public"]"#);
    assert_eq!(
        list(&bob, "?n=1").await,
        (r#"["local/a"]"#.to_owned(), "</v2/_catalog?n=1&last=local/a>; rel=\"next\"".to_owned())
    );
    assert_eq!(list(&bob, "?n=1&last=local/a").await.0, r#"["local/a/below"]"#);
    assert_eq!(list(&bob, "?last=local/a/below").await, (r#"["local/public"]"#.to_owned(), String::new()));
    // Nobody is told anything unasked, so that clients that log in only when asked see what is theirs.
    let asked = world.get("/v2/_catalog").await;
    assert!(asked.is(401).header("www-authenticate").ends_with("scope=\"registry:catalog:*\""));
    let nobody = world.bearer(None, &["registry:catalog:*"]).await;
    assert_eq!(list(&nobody, "").await.0, r#"["local/public"]"#);
    let without = world.bearer(Some(&bob), &["repository:local/a:pull"]).await;
    let refused = world.ask(Method::GET, "/v2/_catalog", &without).await;
    let wanted = "scope=\"registry:catalog:*\",error=\"insufficient_scope\"";
    assert!(refused.is(401).header("www-authenticate").ends_with(wanted));
    let with = world.bearer(Some(&bob), &["registry:catalog:*"]).await;
    assert_eq!(list(&with, "").await.0, r#"["local/a","local/a/below","local/public"]"#);
}

#[tokio::test]
async fn a_mount_takes_only_from_where_the_caller_may_pull() {
    let world = World::with_people().await;
    let (ann, secret, public) = (basic("ann"), Digest::of(b"local/secret"), Digest::of(b"local/public"));
    let bearer = world.bearer(Some(&ann), &["repository:local/a:pull,push"]).await;
    for who in [&ann, &bearer] {
        for (query, status) in [
            (format!("mount={secret}&from=local/secret"), 202),
            (format!("mount={secret}"), 202),
            (format!("mount={public}&from=local/public"), 201),
            (format!("mount={public}"), 201),
            (format!("mount={public}&from=elsewhere/x"), 202),
        ] {
            world.ask(Method::POST, &format!("/v2/local/a/blobs/uploads/?{query}"), who).await.is(status);
            let blob = format!("/v2/local/a/blobs/{public}");
            world.ask(Method::DELETE, &blob, &world.admin()).await;
        }
        world.ask(Method::HEAD, &format!("/v2/local/a/blobs/{secret}"), who).await.is(404);
    }
    // Many hold it before the one that may be read, in the order in which they are looked at.
    for other in 0..9 {
        world.as_admin_push(&format!("local/0{other}"), "v1", b"local/public").await;
    }
    world.ask(Method::POST, &format!("/v2/local/a/blobs/uploads/?mount={public}"), &ann).await.is(201);
}

#[tokio::test]
async fn who_is_wrong_too_often_is_told_when_to_come_again() {
    let world = World::with_people().await;
    world.ask(Method::GET, A, &basic("bob")).await.is(200);
    let wrong = |one: usize| format!("Basic {}", STANDARD.encode(format!("bob:wrong {one}")));
    let credentials: Vec<String> = (0..8).map(wrong).collect();
    let asked = credentials.iter().map(|credentials| world.ask(Method::GET, A, credentials));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.is(401).code(), "UNAUTHORIZED");
    }
    let limited = world.ask(Method::GET, A, &wrong(9)).await;
    assert_eq!((limited.is(429).code().as_str(), limited.header("retry-after")), ("TOOMANYREQUESTS", "60"));
    world.ask(Method::GET, A, &basic("bob")).await.is(200);
    world.clock.advance(Duration::from_mins(1));
    world.ask(Method::GET, A, &wrong(9)).await.is(401);
}

#[tokio::test]
async fn where_nobody_is_asked_who_they_are_wrong_credentials_are_refused_all_the_same() {
    let world = World::new().await;
    let digest = world.push_blob("local/app", b"x").await;
    let blob = format!("/v2/local/app/blobs/{digest}");
    world.get(&blob).await.is(200);
    world.ask(Method::GET, &blob, "Bearer nonsense").await.is(401);
    world.ask(Method::GET, &blob, &format!("Basic {}", STANDARD.encode("ann:wrong"))).await.is(401);
    let user =
        NewUser { name: account("ann"), password: Some("password of ann".to_owned()), role: Role::Nobody };
    world.access.create_user(&root(), user).await.unwrap();
    // Nobody has less for having said who they are.
    world.ask(Method::GET, &blob, &basic("ann")).await.is(200);
    world.ask(Method::DELETE, &blob, &basic("ann")).await.is(202);
}
