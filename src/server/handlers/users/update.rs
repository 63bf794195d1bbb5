//! `PATCH /v1/users/{name}`

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::Deserialize;

use crate::access::{AccessError, AccountName, Action, Principal, Role, UserChange, UserView};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{Segment, sent};

/// What is to be another way; what is left out stays.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::server) struct UserPatch {
    /// The new password; tokens that were given out for the old one end.
    password: Option<String>,
    /// `nobody`, `reader`, `installer` or `administrator`.
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    /// Whether nobody gets in as this user.
    disabled: Option<bool>,
    /// The groups that the user is in from now on.
    #[schema(value_type = Option<Vec<String>>)]
    groups: Option<Vec<AccountName>>,
}

/// Changes a user. Who showed a password may change the own one; all else is an administrator's.
#[utoipa::path(
    patch,
    path = "/v1/users/{name}",
    operation_id = "updateUser",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of the user")),
    request_body = UserPatch,
    responses(
        (status = 200, body = UserView),
        (status = 404, description = "There is no such user"),
        (status = 409, description = "The user stands in the file of `auth.htpasswd`"),
        (status = 422, description = "The password is not taken"),
    )
)]
pub(in crate::server) async fn update(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    body: Body,
) -> ApiResult<Json<UserView>> {
    let name = AccountName::parse(&name)?;
    let own = matches!(&caller.0, Principal::User { name: own, .. } if **own == *name.as_str());
    if !own {
        caller.require(Action::Administer)?;
    }
    let UserPatch { password, role, disabled, groups } = sent(body).await?;
    let access = &app.parts.access;
    let change = UserChange { password, role, disabled, groups };
    if change.is_empty() {
        let user = access.user(name.as_str());
        return Ok(Json(user.ok_or_else(|| AccessError::UserUnknown { name: name.to_string() })?));
    }
    Ok(Json(access.update_user(&caller.0, &name, change).await?))
}
