//! `/v1/jobs/{id}`: a job and its end.

use axum::{
    Extension, Json,
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;

use super::{
    Context,
    auth::Client,
    error::ApiError,
    generate::answer,
    idempotency,
    middleware::RequestId,
    view::{JobJson, job_url},
};
use crate::{
    dispatch::DispatchError,
    domain::{JobId, Origin},
};

/// The `{id}` of a job's address.
pub(super) struct JobPath(pub(super) JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (id,) = path::<(String,), S>(parts, state).await?;
        parse_id(&id).map(Self)
    }
}

/// The segments of a matched route's address.
pub(super) async fn path<T, S>(parts: &mut Parts, state: &S) -> Result<T, ApiError>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    let Path(segments) = Path::from_request_parts(parts, state).await.map_err(|_| ApiError::NoSuchRoute)?;
    Ok(segments)
}

/// An id that no job can have is answered like one that no job has.
pub(super) fn parse_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|_| ApiError::Dispatch(DispatchError::UnknownJob))
}

/// `GET /v1/jobs/{id}`
pub(super) async fn show(State(context): State<Context>, client: Client, JobPath(id): JobPath) -> Result<Response, ApiError> {
    let view = context.dispatcher.job(&client.owner, id).await?;
    Ok(Json(JobJson::from(&view)).into_response())
}

/// `POST /v1/jobs/{id}/cancel`: 200 when the job has ended by it, 202 when it ends at its next step boundary.
pub(super) async fn cancel(State(context): State<Context>, client: Client, JobPath(id): JobPath) -> Result<Response, ApiError> {
    let view = context.dispatcher.cancel(&client.owner, id).await?;
    let status = if view.job.status.is_finished() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(JobJson::from(&view))).into_response())
}

/// `DELETE /v1/jobs/{id}`: the job is gone at once; one that runs is stopped.
pub(super) async fn remove(State(context): State<Context>, client: Client, JobPath(id): JobPath) -> Result<StatusCode, ApiError> {
    context.dispatcher.remove(&client.owner, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/jobs/{id}/retry`: a new job with the request of one that failed or was cancelled.
pub(super) async fn retry(
    State(context): State<Context>,
    Extension(request_id): Extension<RequestId>,
    client: Client,
    JobPath(id): JobPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let idempotency = idempotency::key(&headers)?.map(|key| idempotency::of_address(key, &format!("{}/retry", job_url(id))));
    let origin = Origin { owner: client.owner, request_id: request_id.as_str().to_owned(), idempotency };
    let accepted = context.dispatcher.retry(id, &origin).await?;
    Ok(answer(&context, &origin, &headers, accepted).await)
}
