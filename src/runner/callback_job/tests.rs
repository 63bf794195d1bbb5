use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;

use super::super::report::TestResult;
use super::*;
use crate::callback::verify;
use crate::keys::CallbackRing;
use crate::names::{Digest, Millis, SystemRandom};

type Answers = VecDeque<(StatusCode, &'static str)>;

/// A server that answers as it was told, and what it received.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<Answers>>,
    received: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Server {
    async fn start(answers: &[(u16, &'static str)]) -> (Self, SocketAddr) {
        let answers =
            answers.iter().map(|(status, body)| (StatusCode::from_u16(*status).unwrap(), *body)).collect();
        let server = Self { answers: Arc::new(Mutex::new(answers)), received: Arc::default() };
        let router = axum::Router::new()
            .route("/v1/submissions/7/container-result", post(answer))
            .with_state(server.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router));
        (server, address)
    }

    fn received(&self) -> Vec<(HeaderMap, Bytes)> {
        self.received.lock().unwrap().clone()
    }
}

async fn serve(listener: tokio::net::TcpListener, router: axum::Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let io = hyper_util::rt::TokioIo::new(stream);
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
    }
}

async fn answer(
    State(server): State<Server>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], &'static str) {
    server.received.lock().unwrap().push((headers, body));
    let (status, body) = server.answers.lock().unwrap().pop_front().unwrap();
    (status, [("location", "/v1/submissions/7/container-result")], body)
}

fn ring() -> CallbackRing {
    CallbackRing::open(Path::new("/nonexistent"), Some(&"k".repeat(32)), None, &SystemRandom).unwrap()
}

fn report() -> TestReport {
    TestReport::of(Digest::of(b"pack"), vec![TestResult::passed("test", 1)], "words", None)
}

async fn send(url: &str, delays: &[Duration]) -> Result<(), RunnerError> {
    let (id, nonce) = (SubmissionId::parse("7").unwrap(), Nonce::parse("n7").unwrap());
    let signer = Signer::new(ring());
    CallbackJob { submission: &id, nonce: &nonce, url, signer: &signer, delays, tls: None }
        .run(&report())
        .await
}

async fn send_to(address: SocketAddr) -> Result<(), RunnerError> {
    send(&format!("http://{address}/v1/submissions/7/container-result"), &[Duration::ZERO; 3]).await
}

#[tokio::test]
async fn a_result_arrives_signed_as_the_contract_says() {
    let (server, address) = Server::start(&[(200, "{}")]).await;
    send_to(address).await.unwrap();
    let received = server.received();
    let (headers, body) = &received[0];
    assert_eq!(headers["content-type"], "application/json");
    let values: Vec<&[u8]> = headers.get_all(HEADER).iter().map(http::HeaderValue::as_bytes).collect();
    let ring = ring();
    let (id, nonces) = (SubmissionId::parse("7").unwrap(), [Nonce::parse("n7").unwrap()]);
    let verified = verify(&ring.accepted(Millis(0)), &id, &nonces, &values, body).unwrap();
    assert!(verified.body.passed);
    assert_eq!(verified.body.pack_digest, Some(Digest::of(b"pack")));
}

#[tokio::test]
async fn a_failing_server_gets_the_same_bytes_again() {
    let (server, address) = Server::start(&[(500, ""), (503, ""), (200, "{}")]).await;
    send_to(address).await.unwrap();
    let received = server.received();
    assert_eq!(received.len(), 3);
    assert!(
        received
            .iter()
            .all(|(headers, body)| { *body == received[0].1 && headers[HEADER] == received[0].0[HEADER] })
    );
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_an_error_after_all_attempts() {
    let (server, address) = Server::start(&[(502, ""); 4]).await;
    let error = send_to(address).await.unwrap_err();
    assert!(matches!(error, RunnerError::ServerFailed { status: 502, attempts: 4, .. }), "{error:?}");
    assert_eq!((server.received().len(), error.code()), (4, "runner_callback_undelivered"));
}

#[tokio::test]
async fn a_refusal_is_not_repeated_and_keeps_its_code() {
    for (status, body, code) in [
        (401, r#"{"code":"unauthorized"}"#, "unauthorized"),
        (409, r#"{"code":"digest_mismatch"}"#, "digest_mismatch"),
        (404, "not json", "unknown"),
        (413, r#"{"code":"<script>"}"#, "unknown"),
        (307, "", "unknown"),
        (204, "", "unknown"),
    ] {
        let (server, address) = Server::start(&[(status, body)]).await;
        match send_to(address).await.unwrap_err() {
            RunnerError::Refused { status: found, code: named } => {
                assert_eq!((found, named.as_str()), (status, code));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(server.received().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn nobody_listening_is_an_error_after_all_attempts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = send_to(address).await.unwrap_err();
    assert!(matches!(error, RunnerError::Unreachable { attempts: 4, .. }), "{error:?}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn what_is_no_url_is_refused_at_once() {
    let error = send("not a url", &[Duration::from_hours(1)]).await.unwrap_err();
    assert!(matches!(error, RunnerError::Request { .. }), "{error:?}");
}

#[tokio::test]
async fn each_further_attempt_waits_as_long_as_it_is_told() {
    assert_eq!(DELAYS.map(|delay| delay.as_secs()), [0, 5, 30]);
    let (server, address) = Server::start(&[(500, ""), (500, ""), (200, "")]).await;
    let before = std::time::Instant::now();
    let url = format!("http://{address}/v1/submissions/7/container-result");
    send(&url, &[Duration::from_millis(20), Duration::from_millis(40)]).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(60));
    assert_eq!(server.received().len(), 3);
}
