//! The integration tests: one binary, so that it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod dispatch;
mod files;
mod golden;
mod http;
mod image;
mod invariance;
mod pictures;
mod requests;
mod rooms;
mod store;
mod support;
