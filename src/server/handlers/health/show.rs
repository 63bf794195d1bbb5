//! `GET /health`

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::names::Millis;
use crate::server::app::App;
use crate::state::{Read, Table, record};

/// A change that is due must not have waited for longer.
const QUEUE_AGE: Duration = Duration::from_mins(15);

/// What the check of the state writes and reads back.
const PROBES: Table<String, Probe> = Table::new("server.probes");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Probe {
    at: Millis,
}
record!(Probe, 1);

/// Whether every part really works, tried out within the last second (a sandbox within the last minute).
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "showHealth",
    tag = "operations",
    responses(
        (status = 200, description = "Everything works", body = Value),
        (status = 503, description = "A check fails; `checks` says which", body = Value),
    )
)]
pub(in crate::server) async fn show(State(app): State<App>) -> Response {
    let now = app.parts.clock.now();
    let report = app.health.get(now, || report(&app)).await;
    let well = report["status"] == "ok";
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn report(app: &App) -> Value {
    let mut checks = Map::new();
    let (state, blobs, queue, runner) = tokio::join!(state(app), blobs(app), queue(app), runner(app));
    let schema = app.parts.state.schema().schema;
    let ours = crate::state::State::SCHEMA;
    let schema_check = if schema == ours {
        json!({"ok": true})
    } else {
        failed("schema_differs", &format!("the state has schema {schema}, this binary {ours}"))
    };
    for (name, check) in
        [("state", state), ("blobs", blobs), ("queue", queue), ("runner", runner), ("schema", schema_check)]
    {
        if check["ok"] != true {
            tracing::warn!(check = name, report = %check, "a health check fails");
        }
        checks.insert(name.to_owned(), check);
    }
    let failing: Vec<&String> =
        checks.iter().filter(|(_, check)| check["ok"] != true).map(|(name, _)| name).collect();
    let mut report = json!({
        "status": if failing.is_empty() { "ok" } else { "failing" },
        "service": "pantry",
        "version": env!("PANTRY_BUILD_VERSION"),
        "schema": schema,
    });
    if !failing.is_empty() {
        report["failing"] = json!(failing);
    }
    report["checks"] = Value::Object(checks);
    report
}

fn failed(code: &str, message: &str) -> Value {
    json!({"ok": false, "code": code, "message": message})
}

/// With how long it took, in microseconds.
fn passed(started: Instant) -> Value {
    json!({"ok": true, "duration_us": u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)})
}

/// A durable write, and what a later snapshot reads of it.
async fn state(app: &App) -> Value {
    let started = Instant::now();
    let at = app.parts.clock.now();
    let key = || "health".to_owned();
    let written = app.parts.state.write(move |tx| tx.put(&PROBES, &key(), &Probe { at })).await;
    if let Err(error) = written {
        return failed(error.code(), "a record could not be written");
    }
    match app.parts.state.read(move |view| view.get(&PROBES, &key())).await {
        Ok(Some(probe)) if probe.at >= at => passed(started),
        Ok(_) => failed("state_probe_lost", "a record that was written is not there"),
        Err(error) => failed(error.code(), "a record could not be read"),
    }
}

async fn blobs(app: &App) -> Value {
    let started = Instant::now();
    match app.parts.blobs.check().await {
        Ok(()) => passed(started),
        Err(error) => failed(error.code(), "the folder of blobs could not be written and read"),
    }
}

async fn queue(app: &App) -> Value {
    match app.parts.changes.oldest_waiting().await {
        Ok(oldest) => {
            let age = oldest.map_or(Duration::ZERO, |since| app.parts.clock.now().since(since));
            if age > QUEUE_AGE {
                failed("queue_stuck", &format!("a change has been due for {} s", age.as_secs()))
            } else {
                json!({"ok": true, "oldest_seconds": age.as_secs()})
            }
        }
        Err(_) => failed("queue_unreadable", "the changes could not be read"),
    }
}

/// That a sandbox can be made here.
async fn runner(app: &App) -> Value {
    match app.sandbox().await {
        Ok(_) => json!({"ok": true}),
        Err(why) => failed("sandbox_failed", &why),
    }
}
