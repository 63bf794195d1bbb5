//! Requests that nobody sends in earnest: whatever comes, no answer is a failure of the server.

use super::*;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// So many requests are thrown at one registry.
const REQUESTS: usize = 3_000;

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("local/app".to_owned()),
        1 => Just("packages/a/b".to_owned()),
        1 => "[a-z0-9._/-]{0,20}",
        1 => "local/[a-zA-Z0-9%_./-]{0,300}",
    ]
}

fn references() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("v1".to_owned()),
        4 => Just(Digest::of(b"{}").to_string()),
        1 => Just(Digest::sha512_of(b"{}").to_string()),
        1 => "sha256:[0-9a-f]{64}",
        1 => "(sha256|sha512|sha384|md5|SHA256|):[0-9a-fA-F]{0,130}",
        1 => "[a-zA-Z0-9._:@%-]{0,140}",
    ]
}

fn paths() -> impl Strategy<Value = String> {
    let kinds = prop_oneof![
        Just("manifests"),
        Just("blobs"),
        Just("referrers"),
        Just("tags"),
        Just("blobs/uploads"),
        Just("_oci/ext"),
    ];
    prop_oneof![
        8 => (names(), kinds, references()).prop_map(|(name, kind, reference)| format!("/v2/{name}/{kind}/{reference}")),
        3 => names().prop_map(|name| format!("/v2/{name}/blobs/uploads/")),
        2 => names().prop_map(|name| format!("/v2/{name}/tags/list")),
        1 => Just("/v2/_catalog".to_owned()),
        1 => "/v2/[ -~]{0,60}",
    ]
}

fn queries() -> impl Strategy<Value = String> {
    let pair = prop_oneof![
        references().prop_map(|value| format!("digest={value}")),
        references().prop_map(|value| format!("mount={value}")),
        names().prop_map(|value| format!("from={value}")),
        references().prop_map(|value| format!("last={value}")),
        "tag=[a-zA-Z0-9._%-]{0,10}",
        "n=[0-9+-]{0,25}",
        "digest-algorithm=(sha256|sha512|md5)?",
        "artifactType=[a-z/%+.]{0,20}",
        "[a-zA-Z0-9=&%+;]{0,20}",
    ];
    proptest::collection::vec(pair, 0..4).prop_map(|pairs| pairs.join("&"))
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let header = prop_oneof![
        "(bytes=)?[0-9,=-]{0,20}".prop_map(|value| ("range", value)),
        "bytes=[0-9]{0,2}-[0-9]{0,2}(,[0-9]{1,2}-)?".prop_map(|value| ("range", value)),
        "[0-9]{1,2}-[0-9]{1,3}".prop_map(|value| ("content-range", value)),
        "(bytes )?[0-9*/-]{0,20}".prop_map(|value| ("content-range", value)),
        prop_oneof![Just(IMAGE), Just(INDEX), Just("text/plain"), Just(""), Just(";")]
            .prop_map(|value| ("content-type", value.to_owned())),
        "[ -~]{0,30}".prop_map(|value| ("content-type", value)),
        references().prop_map(|value| ("if-match", format!("\"{value}\""))),
        references().prop_map(|value| ("if-none-match", format!("\"{value}\""))),
        "[ -~]{0,20}".prop_map(|value| ("if-range", value)),
        "[0-9]{1,25}".prop_map(|value| ("content-length", value)),
        "[ -~]{0,20}".prop_map(|value| ("accept", value)),
    ];
    proptest::collection::vec(header, 0..4)
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let descriptor = (references(), any::<i16>())
        .prop_map(|(digest, size)| json!({"mediaType": IMAGE, "digest": digest, "size": size}))
        .boxed();
    let manifest = (
        proptest::option::of(descriptor.clone()),
        proptest::option::of(proptest::collection::vec(descriptor.clone(), 0..3)),
        proptest::option::of(proptest::collection::vec(descriptor.clone(), 0..3)),
        proptest::option::of(descriptor),
        prop_oneof![Just(Value::Null), Just(IMAGE.into()), Just(INDEX.into()), Just(7.into())],
    )
        .prop_map(|(config, layers, manifests, subject, kind)| {
            let mut document = json!({"schemaVersion": 2, "mediaType": kind});
            for (name, value) in [("config", config), ("subject", subject)] {
                if let Some(value) = value {
                    document[name] = value;
                }
            }
            for (name, value) in [("layers", layers), ("manifests", manifests)] {
                if let Some(value) = value {
                    document[name] = value.into();
                }
            }
            document.to_string().into_bytes()
        });
    prop_oneof![
        2 => Just(Vec::new()),
        1 => Just(b"{}".to_vec()),
        3 => manifest,
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

fn methods() -> impl Strategy<Value = Method> {
    prop_oneof![
        9 => Just(Method::GET),
        3 => Just(Method::HEAD),
        6 => Just(Method::PUT),
        6 => Just(Method::POST),
        4 => Just(Method::PATCH),
        1 => Just(Method::DELETE),
        1 => Just(Method::OPTIONS),
        1 => Just(Method::from_bytes(b"BREW").unwrap()),
    ]
}

#[tokio::test]
async fn no_request_makes_the_server_fail() {
    let world = World::new().await;
    world.push_image("local/app", "v1", b"layer").await;
    let strategy = (methods(), paths(), queries(), headers(), bodies());
    let seed = std::env::var("HOSTILE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u8);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut statuses = BTreeMap::<u16, usize>::new();
    // Uploads that were begun are written to, also.
    let mut location = None;
    for at in 0..REQUESTS {
        let (method, mut path, query, headers, body) = strategy.new_tree(&mut runner).unwrap().current();
        if let Some(upload) = &location
            && at % 3 == 0
        {
            path = String::clone(upload);
        }
        let uri = format!("{path}?{query}");
        let mut request = Request::builder().method(&method).uri(&uri).header("host", "localhost");
        for (name, value) in &headers {
            request = request.header(*name, value);
        }
        // What is no request at all never comes to the router.
        let Ok(request) = request.body(Body::from(body)) else { continue };
        let answer = world.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        *statuses.entry(status.as_u16()).or_default() += 1;
        let told = answer.headers().get("content-type").cloned();
        if let Some(begun) = answer.headers().get("location").filter(|_| status == StatusCode::ACCEPTED) {
            location = Some(begun.to_str().unwrap().to_owned());
        }
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status.as_u16() < 500, "{method} {uri} {headers:?}: {status} {body:?}");
        if status.is_client_error() && method != Method::HEAD {
            assert_eq!(told.as_ref().unwrap(), "application/json", "{method} {uri}");
            let told: Value = serde_json::from_slice(&body).unwrap();
            assert!(told["errors"][0]["code"].is_string() && told["errors"][0]["message"].is_string());
        }
    }
    // The requests reach all that there is, or they would show nothing.
    for status in [200, 201, 202, 204, 400, 404, 405, 416] {
        assert!(statuses.contains_key(&status), "never {status}: {statuses:?}");
    }
    world.get("/v2/").await.is(200);
}
