//! The speech: HTTP in, HTTP out. Parses what comes, asks the dispatcher, and shows what it answers.
//!
//! `openapi.yaml` is the contract that this room keeps; it is served at `/openapi.yaml`.

mod auth;
mod body;
mod docs;
mod error;
mod events;
mod generate;
mod headers;
mod idempotency;
mod jobs;
mod json;
mod list;
mod middleware;
mod models;
mod ops;
mod pictures;
mod prefer;
mod query;
mod queue;
mod rate;
mod serve;
mod sse;
mod streams;
mod view;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    middleware::{from_fn_with_state, map_response},
    routing::{get, post},
};
use tower_http::catch_panic::CatchPanicLayer;

pub use auth::{AuthSettings, KeySettings};

use crate::{dispatch::Dispatcher, telemetry::Metrics};
use auth::Doorkeeper;
use body::Intake;
use error::ApiError;
use pictures::Workshop;
use streams::Streams;

pub use serve::{ServeSettings, serve};

/// What the routes stand on.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// Accepts, finds and cancels jobs.
    pub dispatcher: Dispatcher,
    /// The server's metrics.
    pub metrics: Metrics,
    /// The room's settings.
    pub settings: ApiSettings,
}

/// The room's settings.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The longest that a request body may take to arrive.
    pub body_timeout: Duration,
    /// The most event streams that one client may have open.
    pub max_event_streams: usize,
    /// The longest that `Prefer: wait=N` waits.
    pub max_wait: Duration,
    /// The time between two comments on a quiet event stream.
    pub keep_alive: Duration,
    /// Who may come in.
    pub auth: AuthSettings,
}

/// [`ApiState`] with what the routes share among themselves.
#[derive(Debug, Clone)]
struct Context {
    dispatcher: Dispatcher,
    metrics: Metrics,
    settings: ApiSettings,
    intake: Arc<Intake>,
    workshop: Arc<Workshop>,
    streams: Arc<Streams>,
}

/// Every route of the server.
pub fn router(state: ApiState) -> Router {
    let ApiState { dispatcher, metrics, settings } = state;
    let doorkeeper = Arc::new(Doorkeeper::new(settings.auth.clone()));
    let intake = Arc::new(Intake::new(settings.max_body_bytes, settings.body_timeout));
    let workshop = Arc::<Workshop>::default();
    let streams = Streams::new(settings.max_event_streams, metrics.event_streams.clone());
    let context = Context { dispatcher, metrics, settings, intake, workshop, streams };
    Router::new()
        .route("/v1/generate", post(generate::generate))
        .route("/v1/jobs", get(list::list))
        .route("/v1/jobs/{id}", get(jobs::show).delete(jobs::remove))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/v1/jobs/{id}/events", get(events::watch))
        .route("/v1/jobs/{id}/images/{index}", get(pictures::show))
        .route("/v1/queue", get(queue::show))
        .route("/v1/queue/pause", post(queue::pause))
        .route("/v1/queue/resume", post(queue::resume))
        .route("/v1/models", get(models::models))
        .route("/v1/schedulers", get(models::schedulers))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .route("/openapi.yaml", get(ops::openapi))
        .route("/docs", get(docs::page))
        .route("/docs/{file}", get(docs::file))
        .fallback(async || ApiError::NoSuchRoute)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(from_fn_with_state(doorkeeper, auth::identify))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(from_fn_with_state(context.metrics.clone(), middleware::observe))
        .layer(map_response(headers::protect))
        .with_state(context)
}
