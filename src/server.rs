//! The HTTP server: its own accept loop, one list of routes, and the mapping of every error to an answer.
//!
//! `accept`, `handshake` and `connection` bring requests in over TCP, TLS and the local socket; `pace`, `transfer` and
//! `streams` cut off who is too slow; `guard` refuses what a foreign web
//! page sends; `observe` gives each request its id, its log line and its figures, and keeps a panic from closing the
//! connection without an answer; `router` lists the routes; `handlers/<noun>/<verb>.rs` answer them; `errors` alone
//! knows which status an error has.
//!
//! This part must never hold a body whose size the client chooses in memory, never log an `Authorization` header, and
//! never tell a client the inside of an error.
//!
//! Invariants:
//! - Every handler takes a `Caller` and asks `require` for its right before anything else; only liveness
//!   (`/health`), the description of the API and the signed callback are for everybody.
//! - A connection without a request makes room for a new one; no address has more than its share, nor more than
//!   its part of the memory for bodies.
//! - A request over TCP names this server in `Host`, else it is refused, so that a name that was bound anew to this
//!   address gives a web page nothing.

mod accept;
mod app;
mod body;
mod caller;
mod challenge;
mod connection;
mod crowd;
mod error;
mod errors;
mod extract;
mod guard;
mod handlers;
mod handshake;
mod metrics;
mod observe;
mod pace;
mod pairs;
mod router;
mod share;
mod socket;
mod streams;
mod transfer;
mod upkeep;
mod v2_path;

#[cfg(test)]
mod tests;

pub use accept::{Bound, Server};
pub use app::{SandboxProbe, ServerParts};
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
pub use caller::read_authorization;
pub use error::ServerError;
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
pub use pairs::read_form;
pub use router::openapi;
pub use upkeep::{Upkeep, UpkeepFigures, UpkeepReport, UpkeepWork};
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
pub use v2_path::read_v2_path;
