//! `POST /v1/generate`.

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Context,
    error::ApiError,
    json,
    middleware::RequestId,
    prefer,
    view::{JobJson, job_url},
};
use crate::{
    dispatch::{Dispatcher, JobView},
    domain::{MAX_RANDOM_SEED, Submission},
};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Accepts a job, and waits for its end if the client prefers that.
pub(super) async fn generate(
    State(context): State<Context>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (bytes, reservation) = context.intake.read_json(&headers, body).await?.into_parts();
    let parser = context.intake.parser().await?;
    let dispatcher = context.dispatcher.clone();
    // Decoding a picture takes up to a second of one core, so it must not hold up the other requests; the permit goes along, since
    // the work goes on even when the client does not wait for it any more.
    let parsing = tokio::task::spawn_blocking(move || {
        let submission = parse(bytes, &dispatcher);
        drop(parser);
        submission
    });
    let submission = parsing.await.map_err(|error| ApiError::Panicked(error.to_string()))??;
    let accepted = context.dispatcher.submit(submission, request_id.as_str()).await?;
    drop(reservation);
    Ok(answer(&context, &headers, accepted).await)
}

fn parse(bytes: Vec<u8>, dispatcher: &Dispatcher) -> Result<Submission, ApiError> {
    let body = json::parse(&bytes)?;
    drop(bytes);
    let random_seed = rand::random_range(0..=MAX_RANDOM_SEED);
    Submission::parse(body, dispatcher.models(), random_seed).map_err(ApiError::InvalidFields)
}

async fn answer(context: &Context, headers: &HeaderMap, accepted: JobView) -> Response {
    let location = [(header::LOCATION, job_url(accepted.job.id))];
    let Some(wait) = prefer::wait(headers) else {
        return (StatusCode::ACCEPTED, location, Json(JobJson::from(&accepted))).into_response();
    };
    let patience = wait.min(context.settings.max_wait);
    let waited = context.dispatcher.wait(accepted.job.id, patience).await;
    let view = waited.unwrap_or_else(|error| {
        // The job is accepted whatever happens now: an error would make the client send it again.
        tracing::warn!(job.id = %accepted.job.id, error = %error, "cannot wait for a job");
        accepted
    });
    let status = if view.job.status.is_finished() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let applied = [(PREFERENCE_APPLIED, format!("wait={}", patience.as_secs()))];
    (status, location, applied, Json(JobJson::from(&view))).into_response()
}
