//! `POST /v2/token`: a token for a password or a refresh token, as a form.
//!
//! *Source*: RFC 6749, sections 4.3 and 6; the `OAuth2` token authentication of the `distribution` project.

use axum::extract::{Request, State};
use axum::response::Response;

use super::issue::made;
use crate::access::{Access, Principal, Shown};
use crate::registry::Registry;
use crate::server::body::collect_of_stranger;
use crate::server::caller::{address, refusal};
use crate::server::errors::{ApiError, ApiResult};
use crate::server::pairs::Pairs;

/// No form of a client is larger; and as each body has so much for free, forms need nothing of what all share.
const FORM_CAP: u64 = 16 * 1024;

pub(in crate::server) async fn exchange(
    State(access): State<Access>,
    State(registry): State<Registry>,
    request: Request,
) -> ApiResult<Response> {
    let (head, body) = request.into_parts();
    let from = address(&head.extensions);
    let form = Pairs::read(&collect_of_stranger(body, FORM_CAP).await?)?;
    let wanted = |name: &'static str| {
        form.one(name).ok_or_else(|| {
            ApiError::invalid("UNSUPPORTED", format!("the form lacks `{name}`"))
                .hint("`grant_type=password` with `username` and `password`, or `grant_type=refresh_token`")
        })
    };
    let mut offline = form.one("access_type") == Some("offline");
    let (who, same): (Principal, Option<&str>) = match wanted("grant_type")? {
        "password" => {
            let shown = Shown::Basic { user: wanted("username")?, password: wanted("password")? };
            let who = access
                .identify(shown, from)
                .await
                .map_err(|refused| refusal(refused, shown, "TOOMANYREQUESTS"))?;
            (who, None)
        }
        "refresh_token" => {
            let refresh = wanted("refresh_token")?;
            offline = false;
            (access.refreshed(refresh).ok_or_else(ApiError::wrong_credentials)?, Some(refresh))
        }
        _ => return Err(ApiError::invalid("UNSUPPORTED", "this `grant_type` is not known here")),
    };
    made(&access, &registry, &who, &form, offline, same)
}
