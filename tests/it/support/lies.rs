//! What a hub may do against the rules.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use futures::{StreamExt, stream};
use serde_json::json;

use super::hub::COMMIT;

/// What a hub does to its honest answers.
pub(crate) enum Lie {
    /// The checksum of every file, from the given request for one on, is this text.
    Etag { text: String, from: usize, asked: AtomicUsize },
    /// The commit of every file is this text.
    Commit(String),
    /// The repository has this one file.
    Listing(String),
    /// The repository is at this commit.
    Sha(String),
    /// Everything is at another hub.
    Elsewhere(String),
    /// Everything is where it was asked for.
    Circle,
    /// Redirects say not where to.
    Nowhere,
    /// Files have so many bytes when they are looked at, others when they are sent.
    Size(u64),
    /// Files have no end.
    Endless,
    /// Files come whole, whatever part is asked for.
    Whole,
    /// Files come from another byte than was asked for.
    Shifted,
}

impl Lie {
    /// A text in place of a checksum, from the given request on.
    pub(crate) fn etag(text: &str, from: usize) -> Self {
        Self::Etag { text: text.to_owned(), from, asked: AtomicUsize::new(0) }
    }

    /// What it hears of a request's `headers`.
    pub(crate) fn hear(&self, headers: &mut HeaderMap) {
        if let (Self::Whole, Some(range)) = (self, headers.get_mut(header::RANGE)) {
            *range = HeaderValue::from_static("bytes=0-");
        }
    }

    /// What it makes of the honest `response`.
    pub(crate) fn tell(&self, path: &str, asked: &HeaderMap, mut response: Response) -> Response {
        let is_look = asked.get(header::RANGE).is_some_and(|range| range == "bytes=0-0");
        let (is_listing, is_file) = (path.starts_with("api/"), response.headers().contains_key(header::CONTENT_RANGE));
        match self {
            Self::Etag { text, from, asked } if !is_listing && asked.fetch_add(1, Ordering::SeqCst) + 1 >= *from => {
                set(&mut response, "x-linked-etag", &format!("\"{text}\""));
            }
            Self::Commit(text) if !is_listing => set(&mut response, "x-repo-commit", text),
            Self::Listing(name) if is_listing => {
                return json!({"siblings": [{"rfilename": name}], "sha": COMMIT}).to_string().into_response();
            }
            Self::Sha(sha) if is_listing => {
                return json!({"siblings": [{"rfilename": "a"}], "sha": sha}).to_string().into_response();
            }
            Self::Elsewhere(hub) => return moved(&response, &format!("{hub}/{path}")),
            Self::Circle if !is_listing => return Redirect::temporary(&format!("/{path}")).into_response(),
            Self::Nowhere => drop(response.headers_mut().remove(header::LOCATION)),
            Self::Size(size) if is_file && is_look => set(&mut response, "content-range", &format!("bytes 0-0/{size}")),
            Self::Endless if is_file && !is_look => return endless(response),
            Self::Whole if is_file => forget_range(&mut response),
            Self::Shifted if is_file && !is_look => shift(&mut response),
            _ => {}
        }
        response
    }
}

/// A redirect that still says what the file is, as that of large files does.
fn moved(response: &Response, to: &str) -> Response {
    let mut redirect = Redirect::temporary(to).into_response();
    for name in ["x-linked-etag", "x-repo-commit"] {
        if let Some(value) = response.headers().get(name) {
            redirect.headers_mut().insert(name, value.clone());
        }
    }
    redirect
}

fn set(response: &mut Response, name: &'static str, text: &str) {
    response.headers_mut().insert(name, HeaderValue::from_str(text).unwrap());
}

/// The file, and then zeros for as long as somebody reads them.
fn endless(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    let zeros = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096])));
    Response::from_parts(head, Body::from_stream(body.into_data_stream().chain(zeros)))
}

fn forget_range(response: &mut Response) {
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().remove(header::CONTENT_RANGE);
}

fn shift(response: &mut Response) {
    let range = response.headers()[header::CONTENT_RANGE].to_str().unwrap().to_owned();
    let (first, rest) = range.strip_prefix("bytes ").unwrap().split_once('-').unwrap();
    let first = first.parse::<u64>().unwrap() + 1;
    set(response, "content-range", &format!("bytes {first}-{rest}"));
}
