//! Who asks.

use axum::{extract::FromRequestParts, http::request::Parts};
use std::convert::Infallible;

use crate::domain::Owner;

/// Who sent a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    /// Whose jobs it may see.
    pub(super) owner: Owner,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}
