//! What a client asks for: which picture, how wide, and under which conditions.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, request::Parts},
};

use crate::{
    api::{
        error::ApiError,
        jobs::{parse_id, path},
        query::{Query, whole_number},
    },
    domain::JobId,
};

/// Widths of thumbnails, in pixels; no picture is wider than the largest.
const THUMBNAIL_WIDTHS: [u32; 2] = [16, 2048];

/// A request for a picture, parsed as far as can be done without the job.
pub(in crate::api) struct PictureRequest {
    /// The job.
    pub(super) id: JobId,
    /// The picture's place in the job.
    pub(super) index: u32,
    /// The greatest width in pixels.
    pub(super) width: Option<u32>,
    /// Whether `Range` means something: to GET only (RFC 9110, 14.2).
    pub(super) takes_parts: bool,
    /// `Accept`, `Range` and the conditions.
    pub(super) headers: HeaderMap,
}

impl<S: Send + Sync> FromRequestParts<S> for PictureRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (id, index) = path::<(String, String), S>(parts, state).await?;
        Ok(Self {
            id: parse_id(&id)?,
            index: parse_index(&index)?,
            width: parse_query(parts.uri.query())?,
            takes_parts: parts.method == Method::GET,
            headers: parts.headers.clone(),
        })
    }
}

/// An index as it stands in the picture's URL: `00` and `+0` would be other addresses of the same picture.
fn parse_index(text: &str) -> Result<u32, ApiError> {
    text.parse().ok().filter(|index: &u32| index.to_string() == text).ok_or(ApiError::NoSuchRoute)
}

fn parse_query(query: Option<&str>) -> Result<Option<u32>, ApiError> {
    let [narrowest, widest] = THUMBNAIL_WIDTHS;
    let mut query = Query::new(query);
    let width = query.take("width", whole_number(narrowest, widest));
    query.finish()?;
    Ok(width)
}
