//! `GET /v1/tokens`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::access::{Action, TokenView};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{ListParams, Page, Params};

/// Which tokens.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct TokenParams {
    /// Those of one user.
    owner: Option<String>,
    /// How many entries at most (1 to 200).
    limit: Option<usize>,
    /// The entry after which to begin.
    after: Option<String>,
}

/// API tokens, by id, never the secrets: an administrator sees all, others their own.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    operation_id = "listTokens",
    tag = "accounts",
    params(TokenParams),
    responses((status = 200, body = Page<TokenView>))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<TokenParams>,
) -> ApiResult<Json<Page<TokenView>>> {
    let own = caller.0.user().filter(|_| !caller.0.may(Action::Administer));
    if own.is_none() || params.owner.as_deref().is_some_and(|owner| Some(owner) != own) {
        caller.require(Action::Administer)?;
    }
    let tokens = app.parts.access.tokens(own.or(params.owner.as_deref()));
    let part = ListParams { limit: params.limit, after: params.after };
    Page::of_sorted(tokens, &part, |token| token.id.clone()).map(Json)
}
