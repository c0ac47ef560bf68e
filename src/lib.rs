//! Easel
pub mod api;
pub mod config;
pub mod dispatch;
pub mod domain;
pub mod telemetry;
