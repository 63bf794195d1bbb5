//! `GET /v1/submissions/{id}/events`

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};

use crate::access::Action;
use crate::names::SubmissionId;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::Segment;

/// How often the submission is looked at.
const PACE: Duration = Duration::from_millis(200);

/// After these nothing more happens to a submission.
const FINAL: [&str; 4] = ["published", "rejected", "timed_out", "cancelled"];

struct Watch {
    app: App,
    id: SubmissionId,
    told: Option<String>,
    ended: bool,
}

/// The submission at once and at each change, as `submission` events, until its final state.
#[utoipa::path(
    get,
    path = "/v1/submissions/{id}/events",
    operation_id = "watchSubmission",
    tag = "submissions",
    params(("id" = String, Path, description = "The submission")),
    responses(
        (status = 200, description = "Events", content_type = "text/event-stream", body = String),
        (status = 404, description = "There is none"),
    )
)]
pub(in crate::server) async fn events(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    caller.require(Action::ReadStatus)?;
    let (id, _) = super::show::find(&app, &id).await?;
    let watch = Watch { app, id, told: None, ended: false };
    let events = stream::unfold(watch, |mut watch| async move {
        if watch.ended {
            return None;
        }
        let text = watch.next().await?;
        Some((Ok(Event::default().event("submission").data(text)), watch))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

impl Watch {
    /// The submission as JSON when it is not what was told last; `None` when there is nothing more to tell.
    async fn next(&mut self) -> Option<String> {
        loop {
            // The client asks again, and is then told what is wrong.
            let view = self.app.parts.store.get(&self.id).await.ok()??;
            let text = serde_json::to_string(&view).ok()?;
            self.ended = FINAL.contains(&view.state.as_str());
            if self.told.as_ref() != Some(&text) {
                self.told = Some(text.clone());
                return Some(text);
            }
            tokio::select! {
                () = tokio::time::sleep(PACE) => {}
                () = self.app.closing.cancelled() => return None,
            }
        }
    }
}
