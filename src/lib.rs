//! Easel serves Stable Diffusion over HTTP: many canvases on one device, moved forward together, one UNet call at a time.
//!
//! The rooms, in the order in which a request goes through them:
//!
//! | room | what lives there |
//! |---|---|
//! | [`cli`], [`app`], [`config`], [`telemetry`] | the terminal, the wiring, the settings, logs and metrics |
//! | [`api`] | the speech: routes, problem documents, event streams |
//! | [`domain`] | the words: request, job, status, event, model; parsing without I/O |
//! | [`dispatch`] | the motion: admit, claim, batch, step, publish, settle; its doors are [`dispatch::ports`] |
//! | [`store`] | the memory: jobs in a database, pictures in an object store |
//! | [`diffusion`] | the maths: everything that knows what a tensor is |
//! | [`sys`] | the only `unsafe` |
//!
//! Who may import whom is held by a test (`tests/it/rooms.rs`).

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod diffusion;
pub mod dispatch;
pub mod domain;
pub mod store;
pub mod sys;
pub mod telemetry;
