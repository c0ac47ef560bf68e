//! What was wrong: with a field of a request, or with a job.

use serde::{Deserialize, Serialize};

/// One bad field of a request: where it is and what is allowed there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// RFC 6901 JSON pointer into the request's body, such as `/width`.
    pub pointer: String,
    /// What is allowed and what came, for a person to read.
    pub detail: String,
}

impl FieldError {
    /// An error at the top-level field `name`.
    pub fn at(name: &str, detail: impl Into<String>) -> Self {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        Self { pointer: format!("/{escaped}"), detail: detail.into() }
    }
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// A stable word for programs, such as `not_finite` or `out_of_memory`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl JobError {
    /// Pairs a stable code with its message.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}
