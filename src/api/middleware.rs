//! What surrounds every request: its id, its span, one log line, its metrics, and the problem document of its error.

use std::{any::Any, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;
use uuid::Uuid;

use super::error::ApiError;
use crate::telemetry::{Metrics, panic_message};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 64;
/// What probes and scrapers ask for every few seconds; logged at debug level only.
const QUIET_ROUTES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The name of one HTTP request in logs, headers, problems and its job.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) HeaderValue);

impl RequestId {
    /// The client's id if it is a short plain word, so that it can stand in logs as it is; else a new one.
    fn of(headers: &HeaderMap) -> Self {
        let is_plain = |id: &&HeaderValue| {
            let bytes = id.as_bytes();
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
            (1..=MAX_REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(plain)
        };
        let given = headers.get(X_REQUEST_ID).filter(is_plain).cloned();
        Self(given.unwrap_or_else(|| HeaderValue::try_from(Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("-"))))
    }

    /// The id as text.
    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }
}

/// Runs a request inside its span, then writes what is to be said about it.
pub(super) async fn observe(State(metrics): State<Metrics>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = method_label(request.method());
    let client = tracing::field::Empty; // Found out by `auth`.
    let span = tracing::info_span!("request", request.id = id.as_str(), http.method = method, http.route = route, client);
    request.extensions_mut().insert(id.clone());
    let started = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let seconds = started.elapsed().as_secs_f64();
    let mut response = span.in_scope(|| finish(response, &id, route, seconds));
    metrics.http_requests_total.with_label_values(&[method, route, response.status().as_str()]).inc();
    metrics.http_request_seconds.with_label_values(&[method, route]).observe(seconds);
    response.headers_mut().insert(X_REQUEST_ID, id.0);
    response
}

/// Logs the answer and, where it carries an error, gives it its problem document.
fn finish(mut response: Response, id: &RequestId, route: &str, seconds: f64) -> Response {
    let status = response.status().as_u16();
    let error = response.extensions_mut().remove::<Arc<ApiError>>();
    match &error {
        Some(error) if status == 500 => {
            tracing::error!(http.status = status, request.seconds = seconds, error = %error, "answered with an error");
        }
        // A server that drains, is busy or waits for its store says so to every client that asks; that is no fault of its own.
        Some(error) if status > 500 => tracing::warn!(http.status = status, request.seconds = seconds, problem = %error, "refused"),
        _ if QUIET_ROUTES.contains(&route) => tracing::debug!(http.status = status, request.seconds = seconds, "answered"),
        Some(error) => tracing::info!(http.status = status, request.seconds = seconds, problem = %error, "refused"),
        None => tracing::info!(http.status = status, request.seconds = seconds, "answered"),
    }
    let Some(error) = error else { return response };
    let mut problem = error.problem(id.as_str());
    problem.headers_mut().extend(std::mem::take(response.headers_mut()));
    problem
}

/// Methods are words that a client chooses; only the known ones become labels.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

/// A handler's panic as an answer; the panic hook has told where it happened.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    ApiError::Panicked(panic_message(&*panic)).into_response()
}
