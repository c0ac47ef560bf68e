//! `/v1/queue`: the queue as a whole.

use axum::{Json, extract::State};
use serde::Serialize;

use super::{Context, auth::Admin, error::ApiError};
use crate::dispatch::QueueState;

/// The queue of the server, whosever jobs they are.
#[derive(Serialize)]
pub(super) struct QueueJson {
    queued: u64,
    running: u64,
    paused: bool,
}

impl From<QueueState> for QueueJson {
    fn from(QueueState { queued, running, paused }: QueueState) -> Self {
        Self { queued, running, paused }
    }
}

/// `GET /v1/queue`
pub(super) async fn show(State(context): State<Context>) -> Result<Json<QueueJson>, ApiError> {
    Ok(Json(context.dispatcher.queue().await?.into()))
}

/// `POST /v1/queue/pause`: nothing is begun any more; what runs goes on. For admins.
pub(super) async fn pause(_: Admin, State(context): State<Context>) -> Result<Json<QueueJson>, ApiError> {
    Ok(Json(context.dispatcher.set_paused(true).await?.into()))
}

/// `POST /v1/queue/resume`. For admins.
pub(super) async fn resume(_: Admin, State(context): State<Context>) -> Result<Json<QueueJson>, ApiError> {
    Ok(Json(context.dispatcher.set_paused(false).await?.into()))
}
