//! What is wrong gets an error of the specification, never a 500.

use super::*;

use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test]
async fn bad_names_digests_and_references_are_refused() {
    let world = World::new().await;
    let good = Digest::of(b"x");
    for (method, path, status, code) in [
        (Method::GET, "/v2/local/app/manifests/sha256:baddigeststring".to_owned(), 400, "DIGEST_INVALID"),
        (Method::PUT, "/v2/local/app/manifests/sha256:baddigeststring".to_owned(), 400, "DIGEST_INVALID"),
        (Method::DELETE, "/v2/local/app/manifests/sha256:baddigeststring".to_owned(), 400, "DIGEST_INVALID"),
        (Method::GET, "/v2/local/app/manifests/.hidden".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (Method::PUT, "/v2/local/app/manifests/.hidden".to_owned(), 400, "MANIFEST_INVALID"),
        (Method::GET, "/v2/local/app/blobs/md5:0000".to_owned(), 400, "DIGEST_INVALID"),
        (Method::GET, "/v2/local/app/blobs/x".to_owned(), 400, "DIGEST_INVALID"),
        (Method::GET, format!("/v2/local/app/blobs/{good}"), 404, "BLOB_UNKNOWN"),
        (Method::GET, "/v2/local/app/manifests/none".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (Method::GET, "/v2/elsewhere/app/manifests/none".to_owned(), 404, "NAME_UNKNOWN"),
        (Method::GET, "/v2/local/UPPER/manifests/none".to_owned(), 400, "NAME_INVALID"),
        (Method::GET, format!("/v2/local/{}/manifests/a", "a".repeat(256)), 400, "NAME_INVALID"),
        (Method::GET, "/v2/local/%2e%2e/manifests/a".to_owned(), 400, "NAME_INVALID"),
        (Method::GET, "/v2/local/%ff/manifests/a".to_owned(), 400, "NAME_INVALID"),
        (Method::GET, "/v2/local/app/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        (Method::GET, "/v2/_catalog?n=x".to_owned(), 400, "PAGINATION_NUMBER_INVALID"),
        (Method::GET, "/v2/local/app/referrers/sha256:bad".to_owned(), 400, "DIGEST_INVALID"),
        (Method::GET, "/v2/nothing".to_owned(), 404, "NAME_UNKNOWN"),
        (Method::PUT, "/v2/".to_owned(), 405, "UNSUPPORTED"),
        (Method::TRACE, "/v2/".to_owned(), 405, "UNSUPPORTED"),
        (Method::POST, format!("/v2/local/app/blobs/{good}"), 405, "UNSUPPORTED"),
        (Method::POST, "/v2/local/app/blobs/uploads/?digest=sha256:bad".to_owned(), 400, "DIGEST_INVALID"),
        (Method::POST, "/v2/local/app/blobs/uploads/?mount=sha256:bad".to_owned(), 400, "DIGEST_INVALID"),
        (
            Method::POST,
            "/v2/local/app/blobs/uploads/?digest-algorithm=md5".to_owned(),
            400,
            "BLOB_UPLOAD_INVALID",
        ),
        (Method::PATCH, "/v2/local/app/blobs/uploads/unknown".to_owned(), 404, "BLOB_UPLOAD_UNKNOWN"),
        (Method::PATCH, "/v2/local/app/blobs/uploads/..%2F..%2Fx".to_owned(), 404, "NAME_UNKNOWN"),
        (
            Method::PUT,
            format!("/v2/local/app/blobs/uploads/unknown?digest={good}"),
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
        (Method::PUT, "/v2/local/app/blobs/uploads/unknown".to_owned(), 400, "DIGEST_INVALID"),
    ] {
        let answer = world.send(method.clone(), &path, &[], Body::empty()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{method} {path}");
        assert!(!answer.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn what_the_specification_has_no_word_for_stands_in_the_detail() {
    let world = World::new().await;
    let foreign = world.send(Method::GET, "/v2/", &[("host", "evil.example")], Body::empty()).await;
    // Two names are none.
    assert_eq!(foreign.is(421).code(), "UNSUPPORTED");
    assert_eq!(foreign.json()["errors"][0]["detail"]["code"], "HOST_NOT_ALLOWED");
    let origin = [("origin", "http://evil.example")];
    let page = world.send(Method::PUT, "/v2/local/a/manifests/1", &origin, Body::empty()).await;
    assert_eq!(page.is(403).code(), "DENIED");
    assert_eq!(page.json()["errors"][0]["detail"]["code"], "ORIGIN_NOT_ALLOWED");
    let plain = world.get("/v2/local/app/manifests/none").await;
    assert_eq!(plain.json()["errors"][0]["detail"]["code"], Value::Null);
}

#[tokio::test]
async fn clients_cannot_write_what_pantry_publishes() {
    let world = World::new().await;
    let digest = Digest::of(b"x");
    for repo in ["packages/acme/tool", "pantry/base"] {
        for (method, path) in [
            (Method::POST, format!("/v2/{repo}/blobs/uploads/")),
            (Method::POST, format!("/v2/{repo}/blobs/uploads/?digest={digest}")),
            (Method::PUT, format!("/v2/{repo}/manifests/latest")),
            (Method::DELETE, format!("/v2/{repo}/manifests/latest")),
            (Method::DELETE, format!("/v2/{repo}/blobs/{digest}")),
        ] {
            let refused = world.send(method, &path, &[("content-type", IMAGE)], "x").await;
            assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "DENIED"), "{path}");
        }
        world.get(&format!("/v2/{repo}/manifests/latest")).await.is(404);
    }
}

#[tokio::test]
async fn a_manifest_must_be_one_and_have_all_that_it_needs() {
    let world = World::new().await;
    let missing = world.put_manifest("local/app", "v1", IMAGE, &image(b"layer")).await;
    assert_eq!(missing.is(400).code(), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(missing.json()["errors"][0]["detail"]["about"].as_array().unwrap().len(), 2);
    world.push_blob("local/app", b"{}").await;
    world.push_blob("local/other", b"layer").await;
    world.put_manifest("local/app", "v1", IMAGE, &image(b"layer")).await.is(400);
    world.push_blob("local/app", b"layer").await;
    let other = world.put_manifest("local/app", "v1", INDEX, &image(b"layer")).await;
    assert_eq!(other.is(400).code(), "MANIFEST_INVALID");
    let wrong = format!("/v2/local/app/manifests/{}", Digest::of(b"other"));
    let wrong =
        world.send(Method::PUT, &wrong, &[("content-type", IMAGE)], image(b"layer").to_string()).await;
    assert_eq!(wrong.is(400).code(), "DIGEST_INVALID");
    world.get("/v2/local/app/tags/list").await.is(200);
    assert_eq!(world.get("/v2/local/app/tags/list").await.json()["tags"], json!([]));
    let mut foreign = image(b"layer");
    foreign["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar".into();
    foreign["layers"][0]["digest"] = json!(Digest::of(b"elsewhere"));
    world.put_manifest("local/app", "foreign", IMAGE, &foreign).await.is(201);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(IMAGE, b"unknown")]});
    world.put_manifest("local/app", "index", INDEX, &index).await.is(400);
}

/// A piece that counts how many of its kind are alive.
struct Alive(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Alive {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_manifest_of_100_mib_is_refused_without_being_held() {
    let world = World::new().await;
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (alive.clone(), most.clone());
    let pieces = futures_util::stream::iter((0..100).map(move |_| {
        let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(now, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Bytes::from_owner(Alive(vec![b' '; 1 << 20], counted.clone())))
    }));
    let refused = world
        .send(
            Method::PUT,
            "/v2/local/app/manifests/v1",
            &[("content-type", IMAGE)],
            Body::from_stream(pieces),
        )
        .await;
    assert_eq!(refused.is(413).code(), "SIZE_INVALID");
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?} pieces were held at once");
    let cap = usize::try_from(MANIFEST_CAP).unwrap();
    let mut exact = image(b"x").to_string();
    exact.push_str(&" ".repeat(cap - exact.len()));
    let path = "/v2/local/app/manifests/v1";
    let taken = world.send(Method::PUT, path, &[("content-type", IMAGE)], exact).await;
    assert_eq!(taken.is(400).code(), "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn without_rights_nothing_is_told() {
    let world = World::with(Mode::Token).await;
    for path in ["/v2/", "/v2/local/app/manifests/v1", "/v2/elsewhere/app/tags/list", "/v2/_catalog"] {
        let refused = world.get(path).await;
        assert_eq!(refused.is(401).code(), "UNAUTHORIZED");
        let challenge = "Bearer realm=\"http://localhost:7721/v2/token\",service=\"pantry\"";
        assert!(refused.header("www-authenticate").starts_with(challenge), "{path}");
    }
    let token = fs_err::read_to_string(world.folder.path().join("keys/admin-token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    world.send(Method::GET, "/v2/", &[("authorization", &bearer)], Body::empty()).await.is(200);
    world.send(Method::GET, "/v2/", &[("authorization", "Bearer pty_wrong")], Body::empty()).await.is(401);
}

#[tokio::test]
async fn a_foreign_host_or_page_is_refused_in_the_form_of_its_path() {
    let world = World::new().await;
    let request = |path: &str, host: &str, origin: Option<&str>| {
        let mut request = Request::builder().method(Method::POST).uri(path).header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        world.router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let refused = request("/v2/local/a/blobs/uploads/", "evil.example", None).await.unwrap();
    assert_eq!(refused.status(), 421);
    assert_eq!(refused.headers()["content-type"], "application/json");
    let foreign = Some("http://evil.example");
    let refused = request("/v2/local/a/blobs/uploads/", "localhost:7721", foreign).await.unwrap();
    assert_eq!(refused.status(), 403);
    let refused = request("/v1/anything", "localhost:7721", foreign).await.unwrap();
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["code"], "origin_not_allowed");
    assert_eq!(problem["request_id"].as_str().unwrap().len(), 16);
}

#[tokio::test]
async fn a_panic_is_answered() {
    let world = World::new().await;
    let answer = world.get("/panics").await;
    assert_eq!(answer.is(500).json()["code"], "internal_error");
    assert!(!String::from_utf8_lossy(&answer.body).contains("index"), "the inside is for the log alone");
    world.get("/v2/").await.is(200);
}
