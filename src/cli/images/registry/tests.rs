use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A registry that answers every request with this, and then says nothing more; gives its address.
async fn that_says(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
            held.push(stream);
        }
    });
    address
}

fn hasty(host: &str) -> Registry {
    let mut registry = Registry::to_pull(host, "a/b", &Connection::default()).unwrap();
    registry.patience =
        Patience { quiet: Duration::from_millis(300), after_upload: Duration::from_millis(300) };
    registry
}

#[tokio::test]
async fn a_registry_that_stops_sending_is_given_up() {
    for answer in
        [b"".as_slice(), b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxyz"]
    {
        let host = that_says(answer).await;
        let registry = hasty(&host);
        let began = Instant::now();
        let failure = registry.manifest("v1").await.unwrap_err();
        assert!(format!("{failure:?}").contains("registry_silent"), "{failure:?}");
        let place = Url::parse(&format!("http://{host}/upload")).unwrap();
        // Of 9 bytes none is ever there to be sent.
        let never = async |_| {
            Ok(reqwest::Body::wrap_stream(futures_util::stream::pending::<std::io::Result<Vec<u8>>>()))
        };
        if answer.is_empty() {
            let failure = registry.upload(&place, 9, never).await.unwrap_err();
            assert!(format!("{failure:?}").contains("registry_silent"), "{failure:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn a_password_is_not_shown_in_the_clear_to_another_realm() {
    let basic = || Credentials::Basic { username: "ada".to_owned(), password: "secret".to_owned() };
    let asked = async |host: &str, realm: &str, credentials| {
        let connection = Connection { plain_http: Some(true), ca: None, credentials };
        let mut registry = Registry::to_pull(host, "a/b", &connection).unwrap();
        registry.patience = hasty(host).patience;
        registry.token(realm, None).await
    };
    let other = that_says(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"token\":\"t\"}").await;
    let realm = format!("http://{other}/token");
    let refused = asked("127.0.0.1:9", &realm, Some(basic())).await.unwrap_err();
    assert!(format!("{refused:?}").contains("registry_not_valid"), "{refused:?}");
    // Without a password there is nothing to lose, and the registry's own port is who it was given for.
    assert_eq!(asked("127.0.0.1:9", &realm, None).await.unwrap(), "t");
    assert_eq!(asked(&other, &realm, Some(basic())).await.unwrap(), "t");
}
