//! The `Idempotency-Key` header: a client's own name for a request, so that sending it twice paints once.
//!
//! As draft-ietf-httpapi-idempotency-key-header has it, with one addition: the key may stand without quotes, as most clients send it.

use axum::http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::{error::ApiError, query::ParameterError};
use crate::domain::{IdempotencyKey, sha256_hex};

/// The header.
pub(super) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that the answer is that of an earlier request with the same key.
pub(super) const REPLAYED: (HeaderName, &str) = (HeaderName::from_static("idempotent-replayed"), "true");
const MAX_CHARS: usize = 255;

/// The key of a request, if it has one, without its quotes.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_plain = !text.is_empty() && text.len() <= MAX_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && values.next().is_none() {
        return Ok(Some(text.to_owned()));
    }
    let detail = format!("must be one key of 1 to {MAX_CHARS} visible ASCII characters");
    Err(ApiError::InvalidParameters(vec![ParameterError::new("Idempotency-Key", detail)]))
}

/// The key with what it names: a JSON body, in whatever order and spacing it was written.
pub(super) fn of_json(key: String, body: &Value) -> IdempotencyKey {
    IdempotencyKey { key, body_sha256: sha256_hex(canonical(body).as_bytes()) }
}

/// The key with what it names: a request without a body, by its address.
pub(super) fn of_address(key: String, address: &str) -> IdempotencyKey {
    IdempotencyKey { key, body_sha256: sha256_hex(address.as_bytes()) }
}

/// A JSON text that is the same for equal values: the keys of objects in order.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{}:{}", quoted(key), canonical(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(values: &[&'static str]) -> Result<Option<String>, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().unwrap());
        }
        key(&headers)
    }

    #[test]
    fn quotes_make_no_difference() {
        assert_eq!(key_of(&["\"8e03978e-40d5\""]).unwrap(), key_of(&["8e03978e-40d5"]).unwrap());
        assert_eq!(key_of(&[]).unwrap(), None);
    }

    #[test]
    fn a_key_that_is_no_key_is_an_error() {
        for bad in [&[""][..], &["\"\""], &["a b"], &["a", "b"]] {
            assert!(matches!(key_of(bad), Err(ApiError::InvalidParameters(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_order_of_fields_and_the_spacing_make_no_other_body() {
        let hash = |text: &str| of_json("k".to_owned(), &serde_json::from_str(text).unwrap()).body_sha256;
        assert_eq!(hash(r#"{"a": {"x": 1, "y": [1, 2]}, "b": "c"}"#), hash(r#"{"b":"c","a":{"y":[1,2],"x":1}}"#));
        assert_ne!(hash(r#"{"a": [1, 2]}"#), hash(r#"{"a": [2, 1]}"#));
        assert_ne!(hash(r#"{"a": "1"}"#), hash(r#"{"a": 1}"#));
    }
}
