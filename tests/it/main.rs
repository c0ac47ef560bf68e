//! The integration tests: one binary, so that it links once.
#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod pictures;
mod requests;
