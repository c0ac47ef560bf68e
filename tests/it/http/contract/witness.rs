//! Sends requests, holds each answer to the document, and remembers which answers were seen.

use std::{collections::BTreeSet, sync::Mutex};

use bytes::Bytes;
use reqwest::{RequestBuilder, Response, header::HeaderMap};
use serde_json::{Value, json};

use super::{
    document::{Document, Operation},
    schema::{assert_event_keeps, assert_keeps},
};
use crate::support::{SseEvent, TestClient, sse_events};

/// What every answer has, as the document says at its beginning.
const EVERYWHERE: [&str; 7] = [
    "cache-control",
    "content-security-policy",
    "cross-origin-resource-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
    "x-request-id",
];
/// What is HTTP's own.
const TRANSPORT: [&str; 5] = ["connection", "content-length", "content-type", "date", "transfer-encoding"];

/// What was seen of the server.
pub(super) struct Witness {
    pub(super) document: Document,
    seen: Mutex<BTreeSet<(String, u16)>>,
}

/// An answer that keeps the document.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    /// JSON as it is, text as a string, else null.
    pub(super) body: Value,
    pub(super) events: Vec<SseEvent>,
}

impl Witness {
    pub(super) fn new() -> Self {
        Self { document: Document::load(), seen: Mutex::default() }
    }

    /// Every operation with every status that was seen of it.
    pub(super) fn seen(self) -> BTreeSet<(String, u16)> {
        self.seen.into_inner().unwrap()
    }

    /// Sends a request without a body.
    pub(super) async fn call(&self, client: &TestClient, method: &str, path: &str, status: u16) -> Answer {
        self.send(client, client.request(method, path), status).await
    }

    /// Posts a job.
    pub(super) async fn post(&self, client: &TestClient, body: &Value, status: u16) -> Value {
        self.send(client, client.request("POST", "/v1/generate").json(body), status).await.body
    }

    /// Sends a request; its answer must have this status and be as it is documented.
    pub(super) async fn send(&self, client: &TestClient, request: RequestBuilder, status: u16) -> Answer {
        let (http, request) = request.build_split();
        let request = request.unwrap();
        let (method, path) = (request.method().to_string(), request.url().path().to_owned());
        let answer = client.send(RequestBuilder::from_parts(http, request)).await;
        let operation = self.document.find(&method, &path);
        self.check(operation, answer, status).await
    }

    /// Holds an answer to what an operation documents.
    pub(super) async fn check(&self, operation: Operation<'_>, answer: Response, status: u16) -> Answer {
        let what = format!("{} answered {}", operation.id(), answer.status().as_u16());
        let (got, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await.unwrap();
        assert_eq!(got, status, "{what}: {}", String::from_utf8_lossy(&bytes));
        let response = operation.response(&self.document, status);
        self.check_headers(response, &headers, &what);
        let (body, events) = self.check_body(response, &headers, &bytes, &what);
        self.seen.lock().unwrap().insert((operation.id().to_owned(), status));
        Answer { headers, body, events }
    }

    fn check_headers(&self, response: &Value, headers: &HeaderMap, what: &str) {
        for name in EVERYWHERE {
            assert!(headers.contains_key(name), "{what} without {name}");
        }
        let documented = response["headers"].as_object().cloned().unwrap_or_default();
        for (name, header) in &documented {
            let header = self.document.resolve(header);
            match headers.get(name) {
                Some(value) => {
                    let value = typed(self.document.resolve(&header["schema"]), value.to_str().unwrap());
                    assert_keeps(&self.document, &header["schema"], &value, &format!("{what}, header {name}"));
                }
                None => assert!(header["required"] != true, "{what} without {name}"),
            }
        }
        for name in headers.keys().map(reqwest::header::HeaderName::as_str) {
            let is_general = EVERYWHERE.contains(&name) || TRANSPORT.contains(&name);
            let is_documented = is_general || documented.keys().any(|other| other.eq_ignore_ascii_case(name));
            assert!(is_documented, "{what} with the header {name}, which is not documented");
        }
    }

    fn check_body(&self, response: &Value, headers: &HeaderMap, bytes: &Bytes, what: &str) -> (Value, Vec<SseEvent>) {
        let Some(content_type) = headers.get("content-type") else {
            assert!(bytes.is_empty() && response.get("content").is_none(), "{what} without a content type");
            return (Value::Null, Vec::new());
        };
        let essence = content_type.to_str().unwrap().split(';').next().unwrap();
        let content = &response["content"][essence];
        let schema = content.get("schema").unwrap_or_else(|| panic!("{what} with {essence}, which is not documented"));
        if essence == "text/event-stream" {
            let events = sse_events(std::str::from_utf8(bytes).unwrap());
            events.iter().for_each(|event| assert_event_keeps(&self.document, schema, event, what));
            return (Value::Null, events);
        }
        if schema["format"] == "binary" {
            assert!(!bytes.is_empty(), "{what} with nothing");
            return (Value::Null, Vec::new());
        }
        let text = std::str::from_utf8(bytes).unwrap();
        let body = match essence {
            "application/yaml" => serde_saphyr::from_str(text).unwrap(),
            _ if essence.ends_with("json") => serde_json::from_str(text).unwrap(),
            _ => json!(text),
        };
        assert_keeps(&self.document, schema, &body, what);
        (body, Vec::new())
    }
}

/// A header's text as the type that its schema names.
fn typed(schema: &Value, text: &str) -> Value {
    if schema["type"] == "integer" { json!(text.parse::<u64>().unwrap()) } else { json!(text) }
}
