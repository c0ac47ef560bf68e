//! `/v1/jobs/{id}/images/{index}`: a finished picture, in the format, size and part that the client asks for.

mod accept;
mod range;
mod variant;
mod workshop;

use std::ops::Range;

use axum::{
    extract::{FromRequestParts, RawQuery, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use headers::{AcceptRanges, ContentRange, ETag, HeaderMapExt, IfNoneMatch};

use self::variant::Variant;
pub(super) use self::workshop::Workshop;
use super::{
    Context,
    error::ApiError,
    jobs::{parse_id, path},
    query::{Query, integer},
};
use crate::domain::{JobId, JobImage};

/// A picture never changes under its address.
const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
/// Widths of thumbnails, in pixels; no picture is wider than the largest.
const THUMBNAIL_WIDTHS: [u32; 2] = [16, 2048];

/// The `{id}` and `{index}` of a picture's address.
pub(super) struct ImagePath(JobId, u32);

impl<S: Send + Sync> FromRequestParts<S> for ImagePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (id, index) = path::<(String, String), S>(parts, state).await?;
        Ok(Self(parse_id(&id)?, parse_index(&index)?))
    }
}

/// An index as it stands in the picture's URL: `00` and `+0` would be other addresses of the same picture.
fn parse_index(text: &str) -> Result<u32, ApiError> {
    text.parse().ok().filter(|index: &u32| index.to_string() == text).ok_or(ApiError::NoSuchRoute)
}

/// `GET /v1/jobs/{id}/images/{index}`. The job's row has all that a client needs to be told that it has the picture, so that such a
/// one costs no file.
pub(super) async fn show(
    State(context): State<Context>,
    ImagePath(id, index): ImagePath,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let width = parse_query(query.as_deref())?;
    let image = context.dispatcher.image(id, index).await?;
    let variant = Variant::of(&image, accept::choose(&headers, image.content_type)?, width);
    let etag = variant.etag(&image)?;
    if headers.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&etag)) {
        return Ok((StatusCode::NOT_MODIFIED, caching(etag)).into_response());
    }
    let file = file(&context, id, &image, variant).await?;
    // A range means something to GET only (RFC 9110, 14.2).
    let part = if method == Method::GET { range::asked(&headers, &etag, file.len())? } else { None };
    let mut response = answer(file, part)?;
    response.headers_mut().extend(caching(etag));
    response.headers_mut().extend(content(id, index, variant)?);
    Ok(response)
}

fn parse_query(query: Option<&str>) -> Result<Option<u32>, ApiError> {
    let [narrowest, widest] = THUMBNAIL_WIDTHS;
    let mut query = Query::new(query);
    let width = query.take("width", integer(narrowest, widest));
    query.finish(width)
}

/// The stored file, or one that is made of it.
async fn file(context: &Context, id: JobId, image: &JobImage, variant: Variant) -> Result<Bytes, ApiError> {
    if variant.is_stored(image) {
        return Ok(context.dispatcher.picture(id, image).await?);
    }
    let bench = context.workshop.bench().await?;
    let stored = context.dispatcher.picture(id, image).await?;
    bench.make(stored, variant).await
}

fn answer(file: Bytes, part: Option<Range<usize>>) -> Result<Response, ApiError> {
    let Some(part) = part else { return Ok(file.into_response()) };
    let bounds = part.start as u64..part.end as u64;
    let content_range = ContentRange::bytes(bounds, file.len() as u64).map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut response = (StatusCode::PARTIAL_CONTENT, file.slice(part)).into_response();
    response.headers_mut().typed_insert(content_range);
    Ok(response)
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
