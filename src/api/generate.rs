//! `POST /v1/generate`.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Context,
    auth::Client,
    error::ApiError,
    idempotency, json,
    middleware::RequestId,
    prefer,
    view::{JobJson, job_url},
};
use crate::{
    dispatch::{Accepted, Dispatcher, JobView},
    domain::{IdempotencyKey, MAX_RANDOM_SEED, Origin, Submission},
};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Accepts a job, and waits for its end if the client prefers that.
pub(super) async fn generate(
    State(context): State<Context>,
    Extension(request_id): Extension<RequestId>,
    client: Client,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (bytes, reservation) = context.intake.read_json(&headers, body).await?.into_parts();
    // Only now: a body that nobody reads would cost the client its answer.
    let key = idempotency::key(&headers)?;
    let parser = context.intake.parser().await?;
    let dispatcher = context.dispatcher.clone();
    // Decoding a picture takes up to a second of one core, so it must not hold up the other requests; the permit goes along, since
    // the work goes on even when the client does not wait for it any more.
    let parsing = tokio::task::spawn_blocking(move || {
        let parsed = parse(bytes, key, &dispatcher);
        drop(parser);
        parsed
    });
    let (submission, idempotency) = parsing.await.map_err(|error| ApiError::Panicked(error.to_string()))??;
    let origin = Origin { owner: client.owner, request_id: request_id.as_str().to_owned(), idempotency };
    let accepted = context.dispatcher.submit(submission, &origin).await?;
    drop(reservation);
    Ok(answer(&context, &origin, &headers, accepted).await)
}

fn parse(bytes: Vec<u8>, key: Option<String>, dispatcher: &Dispatcher) -> Result<(Submission, Option<IdempotencyKey>), ApiError> {
    let body = json::parse(&bytes)?;
    drop(bytes);
    let idempotency = key.map(|key| idempotency::of_json(key, &body));
    let random_seed = rand::random_range(0..=MAX_RANDOM_SEED);
    let submission = Submission::parse(body, dispatcher.models(), random_seed).map_err(ApiError::InvalidFields)?;
    Ok((submission, idempotency))
}

/// The answer to a request to paint: 202 while the job is not over, 200 when it is.
pub(super) async fn answer(context: &Context, origin: &Origin, headers: &HeaderMap, accepted: Accepted) -> Response {
    let Accepted { view, came_before } = accepted;
    let location = [(header::LOCATION, job_url(view.job.id))];
    let (view, applied) = match prefer::wait(headers) {
        None => (view, None),
        Some(wait) => wait_for(context, origin, view, wait.min(context.settings.max_wait)).await,
    };
    let status = if view.job.status.is_finished() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let replayed = came_before.then_some([idempotency::REPLAYED]);
    (status, location, applied.map(|applied| [(PREFERENCE_APPLIED, applied)]), replayed, Json(JobJson::from(&view))).into_response()
}

async fn wait_for(context: &Context, origin: &Origin, accepted: JobView, patience: Duration) -> (JobView, Option<String>) {
    let waited = context.dispatcher.wait(&origin.owner, accepted.job.id, patience).await;
    let view = waited.unwrap_or_else(|error| {
        // The job is accepted whatever happens now: an error would make the client send it again.
        tracing::warn!(job.id = %accepted.job.id, error = %error, "cannot wait for a job");
        accepted
    });
    (view, Some(format!("wait={}", patience.as_secs())))
}
