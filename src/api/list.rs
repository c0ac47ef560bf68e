//! `GET /v1/jobs`: a client's jobs, the newest first, page by page.

use axum::{
    Json,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use super::{
    Context,
    auth::Client,
    error::ApiError,
    query::{Query, shown, whole_number},
    view::JobJson,
};
use crate::{dispatch::ports::JobQuery, domain::JobStatus};

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

/// One page of jobs.
#[derive(Serialize)]
struct PageJson<'a> {
    jobs: Vec<JobJson<'a>>,
    /// Gives the next page; null on the last.
    next_cursor: Option<String>,
}

/// `GET /v1/jobs?status=&limit=&cursor=`
pub(super) async fn list(State(context): State<Context>, client: Client, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let mut query = Query::new(query.as_deref());
    let wanted = JobQuery {
        owner: client.owner,
        statuses: query.take_list("status", parse_status),
        before: query.take("cursor", read_cursor),
        limit: query.take("limit", whole_number(1, MAX_LIMIT)).unwrap_or(DEFAULT_LIMIT),
    };
    query.finish()?;
    let (views, next) = context.dispatcher.list(&wanted).await?;
    let page = PageJson { jobs: views.iter().map(JobJson::from).collect(), next_cursor: next.map(write_cursor) };
    Ok(Json(page).into_response())
}

fn parse_status(text: &str) -> Result<JobStatus, String> {
    let names: Vec<&str> = JobStatus::ALL.into_iter().map(JobStatus::as_str).collect();
    text.parse().map_err(|_| format!("must be one or more of {}, got {}", names.join(", "), shown(text)))
}

/// Opaque to clients, so that what it holds may change.
fn write_cursor(place: i64) -> String {
    URL_SAFE_NO_PAD.encode(place.to_be_bytes())
}

fn read_cursor(text: &str) -> Result<i64, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    let place = bytes.map(i64::from_be_bytes).filter(|place| *place > 0);
    place.ok_or_else(|| format!("must be the next_cursor of another page, got {}", shown(text)))
}
