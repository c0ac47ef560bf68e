//! The one table that turns what can go wrong into RFC 9457 problem documents.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use headers::{ContentRange, HeaderMapExt};
use serde::Serialize;

use super::query::ParameterError;
use crate::{
    dispatch::{DispatchError, ports::StoreError},
    domain::{FieldError, PictureFormat},
};

/// Seconds after which a request that met a draining or busy server, or a store that was away, is worth another try: a restart or a
/// failover takes about as long.
const SOON: u64 = 5;

/// Everything that can go wrong between a request's head and its answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("the body is not JSON: {0}")]
    MalformedJson(String),
    #[error("the body broke off: {0}")]
    BrokenBody(String),
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error("only a key whose settings say admin = true may do this")]
    Forbidden,
    #[error("without keys this server takes requests only for localhost or an address, not for another name in the Host header")]
    Misdirected,
    #[error("pages of other sites may only read here, as long as they come without a key")]
    CrossSite,
    #[error("too many requests at once from this client; try again in {} s", whole_seconds(*wait))]
    RateLimited { wait: Duration },
    #[error("there is nothing at this address")]
    NoSuchRoute,
    #[error("this address does not take this method; the Allow header lists those that it takes")]
    MethodNotAllowed,
    #[error("the body did not arrive within {seconds} s")]
    BodyTimeout { seconds: u64 },
    #[error("the body must have at most {max} bytes")]
    BodyTooLarge { max: usize },
    #[error("the body must be JSON, sent as Content-Type: application/json (or a type that ends in +json), got {0}")]
    UnsupportedMediaType(String),
    #[error("{}", summary(.0))]
    InvalidFields(Vec<FieldError>),
    #[error("{}", parameters_summary(.0))]
    InvalidParameters(Vec<ParameterError>),
    #[error("a picture can be had as {}; the Accept header takes none of them", formats())]
    NotAcceptable,
    #[error("the file has {length} bytes, and none of those that the Range header asks for")]
    RangeNotSatisfiable { length: u64 },
    #[error("this client has {most} event streams open, and may have no more")]
    TooManyStreams { most: usize },
    #[error("too many large bodies arrive at the moment")]
    UploadsBusy,
    #[error("too many pictures are being made smaller or written in other formats at the moment")]
    PicturesBusy,
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    #[error("panicked: {0}")]
    Panicked(String),
    #[error("{0}")]
    Internal(String),
}

/// What `Retry-After` can say: whole seconds, not too early, and never "at once".
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn summary(errors: &[FieldError]) -> String {
    match errors {
        [error] => format!("{}: {}", if error.pointer.is_empty() { "the body" } else { &error.pointer }, error.detail),
        _ => format!("{} fields are wrong; see errors", errors.len()),
    }
}

fn parameters_summary(errors: &[ParameterError]) -> String {
    match errors {
        [error] => format!("{}: {}", error.parameter, error.detail),
        _ => format!("{} parameters are wrong; see errors", errors.len()),
    }
}

fn formats() -> String {
    PictureFormat::ALL.map(PictureFormat::media_type).join(", ")
}

/// How one kind of error is shown. `code` is stable, for programs; `title` belongs to the code.
struct Row {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    retry_after_seconds: Option<u64>,
}

impl Row {
    const fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self { status, code, title, retry_after_seconds: None }
    }

    const fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }
}

/// What is for the log only; both halves of the table end with it.
const INTERNAL: Row = Row::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here");

/// The part of the table that the dispatcher's errors have.
fn dispatch_row(error: &DispatchError) -> Row {
    use DispatchError as D;
    use StatusCode as S;
    match error {
        D::UnknownJob => Row::new(S::NOT_FOUND, "unknown_job", "No such job"),
        D::UnknownPicture(_) => Row::new(S::NOT_FOUND, "unknown_picture", "No such picture"),
        D::Gone => Row::new(S::GONE, "gone", "The job has been removed"),
        D::NotRetryable(_) => Row::new(S::CONFLICT, "not_retryable", "The job cannot be retried"),
        D::AlreadyFinished(_) => Row::new(S::CONFLICT, "already_finished", "The job has ended"),
        D::IdempotencyKeyReused => {
            Row::new(S::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The Idempotency-Key names another request")
        }
        D::QueueFull { retry_after } => {
            Row::new(S::TOO_MANY_REQUESTS, "queue_full", "The queue is full").retry_after(whole_seconds(*retry_after))
        }
        D::OwnerQueueFull { retry_after, .. } => {
            Row::new(S::TOO_MANY_REQUESTS, "key_queue_full", "Too many of your jobs wait").retry_after(whole_seconds(*retry_after))
        }
        D::Store(StoreError::QueueFull { .. }) => {
            Row::new(S::TOO_MANY_REQUESTS, "queue_full", "The queue is full").retry_after(SOON)
        }
        D::DeadlineUnreachable { retry_after, .. } => {
            let title = "The deadline cannot be kept";
            Row::new(S::SERVICE_UNAVAILABLE, "deadline_unreachable", title).retry_after(whole_seconds(*retry_after))
        }
        D::Draining => Row::new(S::SERVICE_UNAVAILABLE, "draining", "The server is stopping").retry_after(SOON),
        D::Store(_) => Row::new(S::SERVICE_UNAVAILABLE, "store_unavailable", "A store does not answer").retry_after(SOON),
        // Trying again would not mend a file, so it is no 503.
        D::BrokenPicture { .. } => INTERNAL,
    }
}

impl ApiError {
    /// The table.
    fn row(&self) -> Row {
        use StatusCode as S;
        match self {
            Self::Dispatch(error) => dispatch_row(error),
            Self::MalformedJson(_) => Row::new(S::BAD_REQUEST, "malformed_json", "The body is not JSON"),
            Self::BrokenBody(_) => Row::new(S::BAD_REQUEST, "broken_body", "The body did not arrive whole"),
            Self::Unauthorized(_) => Row::new(S::UNAUTHORIZED, "unauthorized", "A key is needed"),
            Self::Forbidden => Row::new(S::FORBIDDEN, "forbidden", "Only for admins"),
            Self::Misdirected => Row::new(S::MISDIRECTED_REQUEST, "misdirected", "The request names another host"),
            Self::CrossSite => Row::new(S::FORBIDDEN, "cross_site", "Not from another site"),
            Self::NoSuchRoute => Row::new(S::NOT_FOUND, "no_such_route", "No such address"),
            Self::MethodNotAllowed => Row::new(S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed"),
            Self::NotAcceptable => Row::new(S::NOT_ACCEPTABLE, "not_acceptable", "No acceptable format"),
            Self::BodyTimeout { .. } => Row::new(S::REQUEST_TIMEOUT, "body_timeout", "The body took too long"),
            Self::BodyTooLarge { .. } => Row::new(S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::UnsupportedMediaType(_) => {
                Row::new(S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body's type is not supported")
            }
            Self::RangeNotSatisfiable { .. } => {
                Row::new(S::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "The file has no such range")
            }
            Self::InvalidFields(_) => Row::new(S::UNPROCESSABLE_ENTITY, "invalid_fields", "Fields are wrong"),
            Self::InvalidParameters(_) => Row::new(S::UNPROCESSABLE_ENTITY, "invalid_parameters", "Parameters are wrong"),
            Self::RateLimited { wait } => {
                Row::new(S::TOO_MANY_REQUESTS, "rate_limited", "Too many requests").retry_after(whole_seconds(*wait))
            }
            Self::TooManyStreams { .. } => {
                Row::new(S::TOO_MANY_REQUESTS, "too_many_streams", "Too many event streams").retry_after(SOON)
            }
            Self::UploadsBusy => Row::new(S::SERVICE_UNAVAILABLE, "uploads_busy", "Too many large bodies").retry_after(SOON),
            Self::PicturesBusy => Row::new(S::SERVICE_UNAVAILABLE, "pictures_busy", "Too many pictures").retry_after(SOON),
            Self::Panicked(_) | Self::Internal(_) => INTERNAL,
        }
    }

    /// What the client is told beyond the title. What went wrong inside is for the log, and a store's own words are of the inside.
    fn detail(&self) -> Option<String> {
        match self.row() {
            Row { status: StatusCode::INTERNAL_SERVER_ERROR, .. } => None,
            Row { code: "store_unavailable", .. } => Some("the server cannot reach its jobs or pictures at the moment".to_owned()),
            _ => Some(self.to_string()),
        }
    }

    /// Renders the problem document of the request `request_id`.
    pub(super) fn problem(&self, request_id: &str) -> Response {
        let Row { status, code, title, .. } = self.row();
        let errors = match self {
            Self::InvalidFields(errors) => Errors::Fields(errors),
            Self::InvalidParameters(errors) => Errors::Parameters(errors),
            _ => Errors::None,
        };
        let detail = self.detail();
        let kind = format!("urn:easel:problem:{code}");
        let problem = Problem { kind, title, status: status.as_u16(), code, detail, errors, request_id };
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        (status, content_type, Json(problem)).into_response()
    }
}

/// An RFC 9457 problem document. An internal error has no detail.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Errors::is_none")]
    errors: Errors<'a>,
    request_id: &'a str,
}

/// What was wrong, one by one.
#[derive(Serialize)]
#[serde(untagged)]
enum Errors<'a> {
    None,
    Fields(&'a [FieldError]),
    Parameters(&'a [ParameterError]),
}

impl Errors<'_> {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl IntoResponse for ApiError {
    /// A bare status that carries the error; [`super::middleware::observe`] knows the request's id and writes the document.
    fn into_response(self) -> Response {
        let row = self.row();
        let mut response = row.status.into_response();
        if let Some(seconds) = row.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if row.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::RangeNotSatisfiable { length } = self {
            response.headers_mut().typed_insert(ContentRange::unsatisfied_bytes(length));
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::Value;

    use super::*;
    use crate::domain::JobId;

    const OPENAPI: &str = include_str!("../../openapi.yaml");

    fn every_error() -> Vec<ApiError> {
        let unavailable = StoreError::Unavailable("password=secret".to_owned());
        vec![
            ApiError::MalformedJson("expected value".to_owned()),
            ApiError::BrokenBody("closed".to_owned()),
            ApiError::Unauthorized("a key is needed"),
            ApiError::Forbidden,
            ApiError::CrossSite,
            ApiError::Misdirected,
            ApiError::RateLimited { wait: Duration::from_millis(1) },
            ApiError::NoSuchRoute,
            ApiError::MethodNotAllowed,
            ApiError::BodyTimeout { seconds: 1 },
            ApiError::BodyTooLarge { max: 1 },
            ApiError::UnsupportedMediaType("none".to_owned()),
            ApiError::InvalidFields(vec![FieldError::at("width", "is required")]),
            ApiError::NotAcceptable,
            ApiError::RangeNotSatisfiable { length: 1 },
            ApiError::InvalidParameters(vec![ParameterError::new("limit", "must be a number")]),
            ApiError::TooManyStreams { most: 1 },
            ApiError::UploadsBusy,
            ApiError::PicturesBusy,
            ApiError::Dispatch(DispatchError::Gone),
            ApiError::Dispatch(DispatchError::IdempotencyKeyReused),
            ApiError::Dispatch(DispatchError::OwnerQueueFull { capacity: 1, retry_after: Duration::ZERO }),
            ApiError::Dispatch(DispatchError::UnknownJob),
            ApiError::Dispatch(DispatchError::UnknownPicture(1)),
            ApiError::Dispatch(DispatchError::BrokenPicture { job: JobId::random(), index: 0, problem: "secret" }),
            ApiError::Dispatch(DispatchError::QueueFull { retry_after: Duration::ZERO }),
            ApiError::Dispatch(DispatchError::Draining),
            ApiError::Dispatch(DispatchError::DeadlineUnreachable { deadline: 1, seconds: 1.5, retry_after: Duration::ZERO }),
            ApiError::Dispatch(DispatchError::Store(unavailable)),
            ApiError::Panicked("secret".to_owned()),
            ApiError::Internal("secret".to_owned()),
        ]
    }

    async fn problem_of(error: &ApiError) -> Value {
        let body = to_bytes(error.problem("r-1").into_body(), 10_000).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn every_problem_is_described_in_the_contract() {
        for error in every_error() {
            let problem = problem_of(&error).await;
            let code = problem["code"].as_str().unwrap();
            assert_eq!(problem["type"], format!("urn:easel:problem:{code}"));
            for described in [format!("urn:easel:problem:{code}"), format!("            - {code}\n")] {
                assert!(OPENAPI.contains(&described), "{described}");
            }
            assert!(OPENAPI.contains(problem["title"].as_str().unwrap()), "{problem}");
        }
    }

    #[tokio::test]
    async fn only_an_internal_error_has_no_detail_and_no_problem_tells_what_is_inside() {
        for error in every_error() {
            let problem = problem_of(&error).await;
            assert_eq!(problem.get("detail").is_none(), problem["status"] == 500, "{problem}");
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
    }

    #[test]
    fn whoever_should_come_back_is_told_when_and_never_at_once() {
        for error in every_error() {
            let status = error.row().status.as_u16();
            let response = error.into_response();
            let seconds = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
            assert_eq!(seconds.is_some(), [429, 503].contains(&status), "{status}");
            assert!(seconds != Some(0));
        }
    }
}
