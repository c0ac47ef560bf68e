//! A hub of the test's own, with the routes of huggingface.co. It may [lie](super::lies).

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use futures::{StreamExt, stream};
use serde_json::json;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use tokio::net::TcpListener;
use url::Url;

use super::lies::Lie;

/// The commit of all files.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a hub holds, and how it behaves.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The token that it asks for.
    pub(crate) token: Option<&'static str>,
    /// The file that is cut off in its middle when it is first asked for.
    pub(crate) cut_once: Mutex<Option<&'static str>>,
    /// The file whose last byte comes wrong.
    pub(crate) damaged: Mutex<Option<&'static str>>,
    /// What it does against the rules.
    pub(crate) lie: Option<Lie>,
    /// Each file that was asked for with its first byte, one-byte looks left out.
    pub(crate) sent: Mutex<Vec<(String, usize)>>,
    /// The `Authorization` of every request.
    pub(crate) authorizations: Mutex<Vec<Option<String>>>,
}

impl Shelf {
    /// The files of a folder.
    pub(crate) fn of(folder: &Path) -> Self {
        let mut shelf = Self::default();
        shelf.add(folder, "");
        shelf
    }

    /// One file.
    pub(crate) fn with(name: &str, file: &[u8]) -> Self {
        Self { files: BTreeMap::from([(name.to_owned(), file.to_vec())]), ..Self::default() }
    }

    fn add(&mut self, folder: &Path, prefix: &str) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                self.add(&entry.path(), &format!("{name}/"));
            } else {
                self.files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }

    /// The names of the files that were sent, in order.
    pub(crate) fn names_sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Serves the shelf as `owner/name`; answers the hub's address.
pub(crate) async fn spawn_hub(shelf: Arc<Shelf>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/{*path}", get(answer)).with_state((shelf, url.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn answer(State((shelf, url)): State<(Arc<Shelf>, String)>, UrlPath(path): UrlPath<String>, asked: HeaderMap) -> Response {
    let authorization = asked.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    shelf.authorizations.lock().unwrap().push(authorization);
    let mut heard = asked.clone();
    if let Some(lie) = &shelf.lie {
        lie.hear(&mut heard);
    }
    let response = honest(&shelf, &url, &path, &heard);
    match &shelf.lie {
        Some(lie) => lie.tell(&path, &asked, response),
        None => response,
    }
}

fn honest(shelf: &Shelf, url: &str, path: &str, headers: &HeaderMap) -> Response {
    if path == "api/models/owner/name/revision/main" {
        let is_known =
            shelf.token.is_none_or(|token| headers.get("authorization").is_some_and(|value| value == &format!("Bearer {token}")));
        let siblings: Vec<_> = shelf.files.keys().map(|name| json!({"rfilename": name})).collect();
        let info = json!({"siblings": siblings, "sha": COMMIT}).to_string();
        return if is_known { info.into_response() } else { StatusCode::UNAUTHORIZED.into_response() };
    }
    if let Some(name) = path.strip_prefix(&format!("owner/name/resolve/{COMMIT}/")) {
        return resolve(shelf, name, headers, url);
    }
    path.strip_prefix("store/").map_or(StatusCode::NOT_FOUND.into_response(), |name| send(shelf, name, headers))
}

/// Large files come from another place, and only the hub knows their checksum.
fn resolve(shelf: &Shelf, name: &str, headers: &HeaderMap, url: &str) -> Response {
    let Some(file) = shelf.files.get(name) else { return StatusCode::NOT_FOUND.into_response() };
    let mut response = if name.ends_with(".safetensors") {
        let mut store = Url::parse(url).unwrap();
        store.path_segments_mut().unwrap().push("store").extend(name.split('/'));
        let mut response = Redirect::temporary(store.as_str()).into_response();
        response.headers_mut().insert("x-linked-etag", format!("\"{}\"", sha256(file)).parse().unwrap());
        response
    } else {
        let mut response = send(shelf, name, headers);
        response.headers_mut().insert(header::ETAG, format!("\"{}\"", git_hash(file)).parse().unwrap());
        response
    };
    response.headers_mut().insert("x-repo-commit", COMMIT.parse().unwrap());
    response
}

fn git_hash(file: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", file.len())).chain_update(file).finalize())
}

/// The checksum of a large file, by which the cache names it.
pub(crate) fn sha256(file: &[u8]) -> String {
    hex(&Sha256::digest(file))
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The range that was asked for: `bytes=FIRST-` or `bytes=0-0`.
fn send(shelf: &Shelf, name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = shelf.files.get(name) else { return StatusCode::NOT_FOUND.into_response() };
    let range = headers[header::RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap().to_owned();
    let first: usize = range.split('-').next().unwrap().parse().unwrap();
    let is_look = range == "0-0";
    let mut bytes = if is_look { file[..1].to_vec() } else { file[first..].to_vec() };
    let content_range = format!("bytes {first}-{}/{}", first + bytes.len() - 1, file.len());
    let mut cut = false;
    if !is_look {
        shelf.sent.lock().unwrap().push((name.to_owned(), first));
        cut = shelf.cut_once.lock().unwrap().take_if(|wanted| *wanted == name).is_some();
        if *shelf.damaged.lock().unwrap() == Some(name) {
            *bytes.last_mut().unwrap() ^= 1;
        }
    }
    let length = bytes.len();
    let body = if cut { halved(bytes) } else { Body::from(bytes) };
    let head = [(header::CONTENT_RANGE, content_range), (header::CONTENT_LENGTH, length.to_string())];
    (StatusCode::PARTIAL_CONTENT, head, body).into_response()
}

/// The first half, and then the connection's end.
fn halved(mut bytes: Vec<u8>) -> Body {
    bytes.truncate(bytes.len() / 2);
    // What was written goes out when the next part is waited for.
    let end = stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut off"))
    });
    Body::from_stream(stream::once(async { Ok(Bytes::from(bytes)) }).chain(end))
}
