//! `GET /v2/<name>/referrers/<digest>`

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, header};

use super::super::v2::{V2, in_query, set, warn_limited};
use crate::server::body::Turn;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn list(v2: &V2, name: &str, digest: &str) -> ApiResult<Response> {
    // No media type has a space; a `+` that a client did not encode has become one.
    let wanted = v2.param("artifactType").map(|wanted| wanted.replace(' ', "+"));
    let wanted = wanted.as_deref();
    // Manifests are read whole for annotations that the index is without, and may be as large as the cap.
    let turn = Turn::wait("TOOMANYREQUESTS").await?;
    let page = v2.registry.referrers(&v2.who, name, digest, wanted, v2.param("last")).await?;
    let mut response = Response::new(Body::from(page.index));
    response.extensions_mut().insert(turn);
    set(&mut response, header::CONTENT_TYPE, "application/vnd.oci.image.index.v1+json");
    if page.filtered {
        set(&mut response, HeaderName::from_static("oci-filters-applied"), "artifactType");
    }
    if page.limited {
        warn_limited(&mut response, "the fallback tag names more referrers than are taken in");
    }
    if page.damaged {
        warn_limited(&mut response, "what the fallback tag or a referrer tells is damaged and left out");
    }
    if let Some(last) = page.next {
        let filter = wanted.map(|wanted| format!("artifactType={}&", in_query(wanted))).unwrap_or_default();
        let next = format!("</v2/{name}/referrers/{digest}?{filter}last={last}>; rel=\"next\"");
        set(&mut response, header::LINK, &next);
    }
    Ok(response)
}
