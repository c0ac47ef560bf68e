//! Where jobs come from: whose they are, and which request brought them.

use std::{fmt, sync::Arc};

/// Whose a job is: the name of the key that brought it, or nobody's in particular. Who owns nothing sees nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(Arc<str>);

impl Owner {
    /// Everybody who came without a key.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The owner of a key of this name; an empty name is nobody's.
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The key's name; empty for [`Self::anonymous`].
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "anonymous" } else { &self.0 })
    }
}

/// A client's own name for a request, so that sending it twice paints once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// As the client sent it.
    pub key: String,
    /// SHA-256 of the request's body in hexadecimal: the same key with another body is a mistake of the client's.
    pub body_sha256: String,
}

/// Who sent a request, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Whose the job will be.
    pub owner: Owner,
    /// The id of the HTTP request, for the logs.
    pub request_id: String,
    /// The client's own name for the request, if it gave one.
    pub idempotency: Option<IdempotencyKey>,
}
