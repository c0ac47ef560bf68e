//! Easel
pub mod config;
pub mod dispatch;
pub mod domain;
pub mod store;
pub mod telemetry;
