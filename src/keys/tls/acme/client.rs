//! HTTPS towards an authority: bounded in time and size, and never in the clear.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use super::error::AcmeError;
use crate::keys::tls::files;

const CONNECT: Duration = Duration::from_secs(10);
/// One request, from the name's resolution to the last byte.
const WHOLE: Duration = Duration::from_secs(30);
/// No answer of an authority is longer.
const CAP: usize = 1024 * 1024;

/// A client that follows no redirect: an authority names every address by itself.
pub(super) struct Https(reqwest::Client);

impl Https {
    /// Trusts the certificates of `ca` and no others, or, without it, what this machine trusts.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, AcmeError> {
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(WHOLE);
        if let Some(path) = ca {
            let unusable = || AcmeError::Ca { path: path.to_owned() };
            let found = reqwest::Certificate::from_pem_bundle(&files::read(path)?).map_err(|_| unusable())?;
            if found.is_empty() {
                return Err(unusable());
            }
            builder = builder.tls_certs_only(found);
        }
        builder.build().map(Self).map_err(AcmeError::Client)
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let request = reqwest::Request::try_from(Request::from_parts(parts, body)).map_err(other)?;
            let mut answer = client.execute(request).await.map_err(other)?;
            let mut body = BytesMut::new();
            while let Some(piece) = answer.chunk().await.map_err(other)? {
                if body.len() + piece.len() > CAP {
                    return Err(Error::Str("an answer of a bearable length"));
                }
                body.extend_from_slice(&piece);
            }
            let mut head = http::Response::new(());
            *head.status_mut() = answer.status();
            *head.headers_mut() = std::mem::take(answer.headers_mut());
            Ok(BytesResponse { parts: head.into_parts().0, body: Box::new(body.freeze()) })
        })
    }
}

fn other(error: reqwest::Error) -> Error {
    Error::Other(Box::new(error))
}
