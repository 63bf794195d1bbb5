//! TLS at the beginning of a connection, and the words for who does not speak it.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::keys::{ACME_PROTOCOL, Tls};

/// The first byte of a client that speaks TLS (RFC 8446, section 5.1: a record that carries a handshake).
const HANDSHAKE: u8 = 22;
/// Of a plain request so much is read away before it is answered: a connection closed on unread bytes is reset, and
/// the answer lost with it.
const DRAINED: usize = 64 * 1024;

const PLAIN_BODY: &str = "{\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"this port speaks HTTPS, and the request came as \
plain HTTP\",\"detail\":{\"code\":\"TLS_REQUIRED\",\"hint\":\"begin the address with https://; the certificate to trust is told by `pantry status` on \
the server\"}}]}\n";

/// How a connection begins.
pub(super) enum Begun {
    /// HTTP/1.1 was agreed on, or nothing.
    Http1(Box<TlsStream<TcpStream>>),
    /// HTTP/2 was agreed on.
    Http2(Box<TlsStream<TcpStream>>),
    /// There is nothing more to say: nothing came, a plain request was answered, or an authority has seen its proof.
    Ended,
}

/// Agrees on TLS within `patience`, or tells who speaks plain HTTP that this port doesn't.
pub(super) async fn begin(mut stream: TcpStream, tls: &Tls, patience: Duration) -> io::Result<Begun> {
    let begun = async {
        let mut first = [0_u8; 1];
        if stream.peek(&mut first).await? == 0 {
            return Ok(Begun::Ended);
        }
        if first[0] != HANDSHAKE {
            refuse(&mut stream).await?;
            return Ok(Begun::Ended);
        }
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = tls.server_config(&begun.client_hello());
        let mut stream = begun.into_stream(config).await?;
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        Ok(match protocol.as_deref() {
            Some(b"h2") => Begun::Http2(Box::new(stream)),
            Some(ACME_PROTOCOL) => {
                // The authority has seen its proof in the certificate (RFC 8737, section 3).
                stream.shutdown().await?;
                Begun::Ended
            }
            _ => Begun::Http1(Box::new(stream)),
        })
    };
    tokio::time::timeout(patience, begun)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")))
}

async fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    let mut read = Vec::new();
    let mut piece = [0_u8; 4096];
    loop {
        let length = stream.read(&mut piece).await?;
        if length == 0 || ends(&mut read, &piece[..length]) || read.len() >= DRAINED {
            break;
        }
    }
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n\
         {PLAIN_BODY}",
        PLAIN_BODY.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Until the client has taken it.
    while stream.read(&mut piece).await? > 0 {}
    Ok(())
}

/// Adds what came to a head; whether the head is at its end. Looks at no byte again but the last three.
fn ends(read: &mut Vec<u8>, piece: &[u8]) -> bool {
    let from = read.len().saturating_sub(3);
    read.extend_from_slice(piece);
    read[from..].windows(4).any(|window| window == b"\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::ends;

    #[test]
    fn the_end_of_a_head_is_seen_however_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for size in 1..=head.len() {
            let mut read = Vec::new();
            let ended: Vec<bool> = head.chunks(size).map(|piece| ends(&mut read, piece)).collect();
            let (last, before) = ended.split_last().expect("there are pieces");
            assert!(*last && !before.contains(&true), "pieces of {size}");
        }
        // Long heads that come byte by byte cost no more than their length.
        let mut read = Vec::new();
        let began = std::time::Instant::now();
        assert!((0..1_000_000).all(|_| !ends(&mut read, b"a")));
        assert!(began.elapsed() < std::time::Duration::from_secs(20));
    }
}
