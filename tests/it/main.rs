//! Easel's rooms and the whole of it, through their public doors.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod dispatch;
mod store;
