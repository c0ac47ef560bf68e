//! Reads JSON from a stranger.

use serde_json::Value;

use super::error::ApiError;
use crate::domain::FieldError;

/// The most values, keys included, that a body may have. A request has about 60 at most; without a bound a body of brackets
/// would take twenty times its size in memory.
const MAX_VALUES: usize = 10_000;

/// Parses a body. Its depth is bounded by `serde_json` itself (128).
pub(super) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    if count_values(bytes) > MAX_VALUES {
        let detail = format!("must have at most {MAX_VALUES} values");
        return Err(ApiError::InvalidFields(vec![FieldError { pointer: String::new(), detail }]));
    }
    serde_json::from_slice(bytes).map_err(|error| ApiError::MalformedJson(explain(&error, bytes)))
}

/// Counts the marks outside of strings that a new value follows.
fn count_values(bytes: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b':' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// The parser's words, which name line and column, and a hint for what JavaScript and Python write but JSON does not have.
fn explain(error: &serde_json::Error, bytes: &[u8]) -> String {
    let line = bytes.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let rest = line.get(error.column().saturating_sub(1)..).unwrap_or_default();
    if [b"NaN".as_slice(), b"Infinity", b"nan", b"inf"].iter().any(|word| rest.starts_with(word)) {
        return format!("{error}; JSON has no NaN and no Infinity, every number must be finite");
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(body: &[u8]) -> String {
        parse(body).unwrap_err().to_string()
    }

    #[test]
    fn nan_is_malformed_and_the_detail_says_why_and_where() {
        for body in ["{\"prompt\": \"a\",\n \"seed\": NaN}", "{\"prompt\": \"a\",\n \"seed\": -Infinity}"] {
            let detail = problem_of(body.as_bytes());
            assert!(detail.contains("line 2 column") && detail.contains("every number must be finite"), "{detail}");
        }
    }

    #[test]
    fn a_body_of_brackets_is_refused_before_it_takes_memory() {
        let body = [b'['].into_iter().chain(b"[],".repeat(MAX_VALUES)).collect::<Vec<u8>>();
        assert!(problem_of(&body).contains("at most 10000 values"));
    }

    #[test]
    fn marks_inside_strings_are_not_counted() {
        let text = ",:[{\\\"".repeat(MAX_VALUES);
        assert!(parse(format!("{{\"prompt\": \"{text}\"}}").as_bytes()).is_ok());
    }

    #[test]
    fn depth_is_bounded() {
        let body = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(problem_of(body.as_bytes()).contains("recursion limit"));
    }
}
