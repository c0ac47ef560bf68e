//! Easel
pub mod config;
pub mod diffusion;
pub mod dispatch;
pub mod domain;
#[allow(unsafe_code)]
pub mod sys;
pub mod telemetry;
