//! `/v1/jobs/{id}`: a job, its end, its pictures.

use axum::{
    Extension, Json,
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
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
    domain::{JobId, JobImage, Origin},
};

/// A picture never changes under its address.
const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// The `{id}` of a job's address. One that no job can have is answered like one that no job has.
pub(super) struct JobPath(pub(super) JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (id,) = path::<(String,), S>(parts, state).await?;
        parse_id(&id).map(Self)
    }
}

/// The `{id}` and `{index}` of a picture's address.
pub(super) struct ImagePath(JobId, u32);

impl<S: Send + Sync> FromRequestParts<S> for ImagePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (id, index) = path::<(String, String), S>(parts, state).await?;
        Ok(Self(parse_id(&id)?, parse_index(&index)?))
    }
}

async fn path<T, S>(parts: &mut Parts, state: &S) -> Result<T, ApiError>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    let Path(segments) = Path::from_request_parts(parts, state).await.map_err(|_| ApiError::NoSuchRoute)?;
    Ok(segments)
}

fn parse_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|_| ApiError::Dispatch(DispatchError::UnknownJob))
}

/// An index as it stands in the picture's URL: `00` and `+0` would be other addresses of the same picture.
fn parse_index(text: &str) -> Result<u32, ApiError> {
    text.parse().ok().filter(|index: &u32| index.to_string() == text).ok_or(ApiError::NoSuchRoute)
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

/// `GET /v1/jobs/{id}/images/{index}`
pub(super) async fn image(
    State(context): State<Context>,
    client: Client,
    ImagePath(id, index): ImagePath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // The job's row has the ETag, so that a client that has the picture costs no file.
    if headers.contains_key(header::IF_NONE_MATCH) {
        let image = context.dispatcher.image(&client.owner, id, index).await?;
        if is_cached(&headers, &etag(&image)) {
            return Ok((StatusCode::NOT_MODIFIED, caching(&image)?).into_response());
        }
    }
    let (image, bytes) = context.dispatcher.picture(&client.owner, id, index).await?;
    let content = [(header::CONTENT_TYPE, header_value(&image.content_type)?)];
    Ok((caching(&image)?, content, bytes).into_response())
}

fn etag(image: &JobImage) -> String {
    format!("\"{}\"", image.sha256)
}

fn caching(image: &JobImage) -> Result<[(HeaderName, HeaderValue); 2], ApiError> {
    Ok([(header::ETAG, header_value(&etag(image))?), (header::CACHE_CONTROL, FOREVER)])
}

fn is_cached(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|line| line.split(',')).map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

fn header_value(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|error| ApiError::Internal(error.to_string()))
}
