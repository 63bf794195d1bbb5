//! Answers with bytes that a digest names: all of them, one range, or several.

use std::io;
use std::ops::Range;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::{HeaderValue, Method, StatusCode, header};

use super::v2::{CONTENT_DIGEST, V2, set};
use crate::names::Digest;
use crate::registry::{BlobFound, ByteRange, Registry, RegistryError, parse_byte_range};
use crate::repos::StoredManifest;
use crate::server::errors::ApiResult;

/// Where the bytes come from.
#[derive(Clone)]
pub(super) enum Source {
    Blob(Registry, BlobFound),
    /// Bytes that are hashed again before they go out.
    Manifest(Registry, StoredManifest),
    Memory(Bytes),
}

impl Source {
    async fn pieces(
        &self,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, RegistryError> {
        match self {
            Self::Blob(registry, found) => Ok(registry.open(found).await?.stream(range)),
            Self::Manifest(registry, found) => Ok(registry.open_manifest(found).await?.stream(range)),
            Self::Memory(bytes) => {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(bytes.len()).min(bytes.len());
                let part = range.map_or(bytes.clone(), |range| bytes.slice(at(range.start)..at(range.end)));
                Ok(stream::once(std::future::ready(Ok(part))).boxed())
            }
        }
    }
}

/// What a request is answered with.
enum Asked {
    NotModified,
    Head,
    Whole,
    Part(Range<u64>),
    Parts(Vec<Range<u64>>),
}

/// The answer to a request for a content that is there.
pub(super) struct Answer<'a> {
    v2: &'a V2,
    digest: &'a Digest,
    size: u64,
    kind: &'a str,
    etag: String,
    asked: Asked,
}

impl<'a> Answer<'a> {
    /// Reads from the headers what is asked for.
    ///
    /// # Errors
    /// 416 when the content has nothing of it.
    pub(super) fn new(v2: &'a V2, digest: &'a Digest, size: u64, kind: &'a str) -> ApiResult<Self> {
        let etag = format!("\"{digest}\"");
        let asked = if v2.has(&etag) {
            Asked::NotModified
        } else if v2.method == Method::HEAD {
            Asked::Head
        } else {
            match range(v2, &etag, size) {
                ByteRange::Whole => Asked::Whole,
                ByteRange::Part(part) => Asked::Part(part),
                ByteRange::Parts(parts) => Asked::Parts(parts),
                ByteRange::Unsatisfiable => return Err(RegistryError::RangeInvalid { size }.into()),
            }
        };
        Ok(Self { v2, digest, size, kind, etag, asked })
    }

    /// Tells whether the answer has bytes of the content in it.
    pub(super) fn has_bytes(&self) -> bool {
        !matches!(self.asked, Asked::NotModified | Asked::Head)
    }

    /// The answer as its headers alone.
    pub(super) fn bare(self) -> Response {
        let response = match self.asked {
            Asked::NotModified => StatusCode::NOT_MODIFIED.into_response(),
            _ => sized(StatusCode::OK, self.kind, self.size, Body::empty()),
        };
        self.named(response)
    }

    /// The answer with its bytes.
    pub(super) async fn of(self, source: Source) -> ApiResult<Response> {
        let response = match &self.asked {
            Asked::NotModified | Asked::Head => return Ok(self.bare()),
            Asked::Whole => match source {
                Source::Memory(bytes) => {
                    self.v2.metrics.bytes_out(bytes.len());
                    sized(StatusCode::OK, self.kind, self.size, bytes.into())
                }
                Source::Blob(..) | Source::Manifest(..) => {
                    let body = self.counted(source.pieces(None).await?);
                    sized(StatusCode::OK, self.kind, self.size, body)
                }
            },
            Asked::Part(part) => {
                let body = self.counted(source.pieces(Some(part.clone())).await?);
                let length = part.end - part.start;
                let mut response = sized(StatusCode::PARTIAL_CONTENT, self.kind, length, body);
                set(&mut response, header::CONTENT_RANGE, &content_range(part, self.size));
                response
            }
            Asked::Parts(parts) => self.multipart(parts, source),
        };
        Ok(self.named(response))
    }

    /// Several ranges as `multipart/byteranges`.
    fn multipart(&self, parts: &[Range<u64>], source: Source) -> Response {
        // No content can hold the digest of itself, so this never stands in one.
        let boundary = &self.digest.hex()[..48];
        let heads: Vec<(Bytes, Range<u64>)> = parts
            .iter()
            .map(|part| {
                let range = content_range(part, self.size);
                let kind = self.kind;
                let head = format!("--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {range}\r\n\r\n");
                (Bytes::from(head), part.clone())
            })
            .collect();
        let tail = Bytes::from(format!("--{boundary}--\r\n"));
        let around = heads.iter().map(|(head, part)| head.len() as u64 + (part.end - part.start) + 2);
        let length = around.sum::<u64>() + tail.len() as u64;
        let pieces = stream::iter(heads)
            .then(move |(head, part)| {
                let source = source.clone();
                async move {
                    let once = |bytes| stream::once(std::future::ready(Ok(bytes)));
                    match source.pieces(Some(part)).await {
                        Ok(pieces) => {
                            once(head).chain(pieces).chain(once(Bytes::from_static(b"\r\n"))).boxed()
                        }
                        Err(error) => stream::once(std::future::ready(Err(io::Error::other(error)))).boxed(),
                    }
                }
            })
            .flatten()
            .chain(stream::once(std::future::ready(Ok(tail))));
        let kind = format!("multipart/byteranges; boundary={boundary}");
        sized(StatusCode::PARTIAL_CONTENT, &kind, length, self.counted(pieces.boxed()))
    }

    /// The body, with its bytes in the figures. Its length is said beforehand, so a body that ends early breaks the
    /// connection, where anybody sees it.
    fn counted(&self, pieces: BoxStream<'static, io::Result<Bytes>>) -> Body {
        let metrics = self.v2.metrics.clone();
        Body::from_stream(pieces.inspect(move |piece| {
            if let Ok(piece) = piece {
                metrics.bytes_out(piece.len());
            }
        }))
    }

    fn named(&self, mut response: Response) -> Response {
        set(&mut response, CONTENT_DIGEST, &self.digest.to_string());
        set(&mut response, header::ETAG, &self.etag);
        response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        response
    }
}

/// What is asked for; `If-Range` with another version means all of it.
fn range(v2: &V2, etag: &str, size: u64) -> ByteRange {
    match (v2.header(header::RANGE), v2.headers.get(header::IF_RANGE)) {
        (Some(range), None) => parse_byte_range(range, size),
        (Some(range), Some(version)) if version == etag => parse_byte_range(range, size),
        _ => ByteRange::Whole,
    }
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

fn sized(status: StatusCode, kind: &str, length: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    set(&mut response, header::CONTENT_TYPE, kind);
    response
}
