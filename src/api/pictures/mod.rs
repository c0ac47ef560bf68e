//! `/v1/jobs/{id}/images/{index}`: a finished picture, in the format, size and part that the client asks for.

mod accept;
mod download;
mod range;
mod request;
mod variant;
mod workshop;

use std::ops::Range;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use headers::{AcceptRanges, ContentLength, ContentRange, ETag, HeaderMapExt, IfNoneMatch};

pub(super) use self::workshop::Workshop;
use self::{download::Share, request::PictureRequest, variant::Variant};
use super::{Context, auth::Client, error::ApiError};
use crate::domain::{JobId, JobImage, Owner};

/// A picture never changes under its address.
const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// `GET /v1/jobs/{id}/images/{index}`. The job's row has all that a client needs to be told that it has the picture, so that such a
/// one costs no file.
pub(super) async fn show(State(context): State<Context>, client: Client, asked: PictureRequest) -> Result<Response, ApiError> {
    let PictureRequest { id, index, width, takes_parts, headers } = asked;
    let image = context.dispatcher.image(&client.owner, id, index).await?;
    let variant = Variant::of(&image, accept::choose(&headers, image.content_type)?, width);
    let etag = variant.etag(&image)?;
    if headers.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&etag)) {
        return Ok((StatusCode::NOT_MODIFIED, caching(etag)).into_response());
    }
    let share = context.workshop.downloads.reserve(variant.most_bytes(&image)).await?;
    let file = file(&context, &client.owner, id, &image, variant).await?;
    let part = if takes_parts { range::asked(&headers, &etag, file.len())? } else { None };
    let mut response = answer(file, part, share)?;
    response.headers_mut().extend(caching(etag));
    response.headers_mut().extend(content(id, index, variant)?);
    Ok(response)
}

/// The stored file, or one that is made of it.
async fn file(context: &Context, owner: &Owner, id: JobId, image: &JobImage, variant: Variant) -> Result<Bytes, ApiError> {
    if variant.is_stored(image) {
        return Ok(context.dispatcher.picture(owner, id, image).await?);
    }
    let bench = context.workshop.bench().await?;
    let stored = context.dispatcher.picture(owner, id, image).await?;
    bench.make(stored, variant).await
}

fn answer(file: Bytes, part: Option<Range<usize>>, share: Share) -> Result<Response, ApiError> {
    let Some(part) = part else { return Ok(whole(StatusCode::OK, file, share)) };
    let bounds = part.start as u64..part.end as u64;
    let content_range = ContentRange::bytes(bounds, file.len() as u64).map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut response = whole(StatusCode::PARTIAL_CONTENT, file.slice(part), share);
    response.headers_mut().typed_insert(content_range);
    Ok(response)
}

fn whole(status: StatusCode, bytes: Bytes, share: Share) -> Response {
    let length = ContentLength(bytes.len() as u64);
    let mut response = (status, share.body(bytes)).into_response();
    response.headers_mut().typed_insert(length);
    response
}

/// What a cache should know, with the file or without it.
fn caching(etag: ETag) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(header::CACHE_CONTROL, FOREVER), (header::VARY, HeaderValue::from_static("accept"))]);
    headers.typed_insert(etag);
    headers
}

/// What the file is.
fn content(id: JobId, index: u32, variant: Variant) -> Result<HeaderMap, ApiError> {
    let name = format!("inline; filename=\"{id}-{index}.{}\"", variant.format.extension());
    let name = HeaderValue::from_str(&name).map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static(variant.format.media_type())),
        (header::CONTENT_DISPOSITION, name),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]);
    headers.typed_insert(AcceptRanges::bytes());
    Ok(headers)
}
