//! What operators ask: is it alive, is it ready, what does it measure, what does it offer.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{Context, error::ApiError};
use crate::dispatch::Readiness;

const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENAPI: &str = include_str!("../../openapi.yaml");

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// `GET /readyz`: 200 when jobs can be accepted and painted, else 503; either way every part is named.
pub(super) async fn readyz(State(context): State<Context>) -> Response {
    let Readiness { engine, store, draining } = context.dispatcher.readiness().await;
    let ready = engine && store && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let parts = json!({ "ready": ready, "engine": engine, "store": store, "draining": draining });
    (status, Json(parts)).into_response()
}

/// `GET /metrics`: the Prometheus text format.
pub(super) async fn metrics(State(context): State<Context>) -> Result<Response, ApiError> {
    // Looking at the queue sets its gauges. The other metrics matter most while a store is away.
    if let Err(error) = context.dispatcher.queue().await {
        tracing::warn!(error = %error, "cannot look at the queue for the metrics");
    }
    let text = context.metrics.render().map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response())
}

/// `GET /openapi.yaml`: the contract.
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}
