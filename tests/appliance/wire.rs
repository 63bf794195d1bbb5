//! Raw connections to a server, in the clear and by TLS, and HTTP/2 frames made by hand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::support::{PATIENCE, Server};
use super::tls_client::{self, Tls};

/// Bytes both ways.
pub trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Plain,
    Tls,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::Plain, Self::Tls];

    /// What makes a server listen in this way.
    pub fn setting(self) -> (&'static str, &'static str) {
        ("PANTRY_TLS_MODE", if self == Self::Tls { "self_signed" } else { "off" })
    }

    pub fn of(server: &Server) -> Self {
        if server.url.starts_with("https://") { Self::Tls } else { Self::Plain }
    }
}

/// A TCP connection from an address of this machine.
pub fn tcp_from(server: &Server, source: &str) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let target: SocketAddr = server.address().parse().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.connect(target).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A connection as the server wants it, with HTTP/1.1.
pub fn connect(server: &Server) -> Box<dyn Wire> {
    connect_from(server, "127.0.0.1")
}

pub fn connect_from(server: &Server, source: &str) -> Box<dyn Wire> {
    let stream = tcp_from(server, source);
    match Way::of(server) {
        Way::Plain => Box::new(stream),
        Way::Tls => Box::new(tls(server, stream, b"http/1.1")),
    }
}

/// TLS over a connection.
pub fn tls(server: &Server, stream: TcpStream, protocol: &[u8]) -> Tls {
    let roots = std::fs::read_to_string(server.root.join("ca.pem")).unwrap();
    let stream = handshake(stream, &roots, "localhost", &[protocol]).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(protocol));
    stream
}

/// TLS with a server that these roots vouch for under that name; it need not agree on a protocol.
pub fn handshake(stream: TcpStream, roots_pem: &str, name: &str, protocols: &[&[u8]]) -> io::Result<Tls> {
    handshake_as(None, stream, roots_pem, name, protocols)
}

/// As [`handshake`], showing a certificate.
pub fn handshake_as(
    client_is: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    stream: TcpStream,
    roots_pem: &str,
    name: &str,
    protocols: &[&[u8]],
) -> io::Result<Tls> {
    let client = tls_client::believing(roots_pem.as_bytes()).unwrap();
    let config = match client_is {
        Some((certificate, key)) => client.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => client.with_no_client_auth(),
    };
    speaking(config, stream, name, protocols)
}

/// TLS with a server that shows any certificate, to look at it.
pub fn unverified(stream: TcpStream, name: &str, protocols: &[&[u8]]) -> io::Result<Tls> {
    let config = tls_client::believing_anybody().unwrap().with_no_client_auth();
    speaking(config, stream, name, protocols)
}

fn speaking(mut config: ClientConfig, stream: TcpStream, name: &str, protocols: &[&[u8]]) -> io::Result<Tls> {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    tls_client::handshake(Arc::new(config), name, stream)
}

/// Everything until the other end is gone, however it goes.
pub fn to_the_end(wire: &mut dyn Wire) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0_u8; 16_384];
    loop {
        match wire.read(&mut piece) {
            Ok(0) => return all,
            Ok(length) => all.extend_from_slice(&piece[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the other end neither said anything nor left");
            }
            Err(_) => return all,
        }
    }
}

/// Sends a request in full and reads to the end of the connection.
pub fn ask(server: &Server, request: &str) -> String {
    let mut wire = connect(server);
    wire.write_all(request.as_bytes()).unwrap();
    wire.flush().unwrap();
    String::from_utf8_lossy(&to_the_end(wire.as_mut())).into_owned()
}

/// Others are answered at this very moment, and soon.
pub fn others_are_served(server: &Server) {
    let began = std::time::Instant::now();
    let mut wire = connect_from(server, "127.0.0.9");
    wire.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let told = to_the_end(wire.as_mut());
    assert!(told.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&told));
    assert!(began.elapsed() < Duration::from_secs(10), "answered after {:?}", began.elapsed());
}

/// HTTP/2 by hand (RFC 9113).
pub struct Http2 {
    wire: Tls,
}

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl Http2 {
    /// Connects and sends the preface with these settings.
    pub fn connect(server: &Server, settings: &[(u16, u32)]) -> Self {
        let mut own = Self { wire: tls(server, tcp_from(server, "127.0.0.1"), b"h2") };
        own.wire.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        own.send(SETTINGS, 0, 0, &payload).unwrap();
        own
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.queue(kind, flags, stream, payload)?;
        self.wire.flush()
    }

    pub fn queue(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.wire.write_all(&frame)
    }

    /// A GET on a stream.
    pub fn get(&mut self, stream: u32, path: &str) -> io::Result<()> {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &head(path))
    }

    /// The next frame; `None` at the end.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0_u8; 9];
        self.wire.read_exact(&mut head).ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.wire.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads on until such a frame; `None` when the connection ends before.
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.frame()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}

/// The header block of a GET (RFC 7541): indexed where the static table has it, literal elsewhere.
pub fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87];
    literal(&mut block, 0x04, path);
    literal(&mut block, 0x01, "localhost");
    block
}

/// A literal whose name is in the static table, not to be indexed.
fn literal(block: &mut Vec<u8>, name: u8, value: &str) {
    block.push(name);
    block.push(u8::try_from(value.len()).unwrap());
    block.extend_from_slice(value.as_bytes());
}
