//! Easel
pub mod api;
pub mod config;
pub mod diffusion;
pub mod dispatch;
pub mod domain;
pub mod store;
#[allow(unsafe_code)]
pub mod sys;
pub mod telemetry;
