//! What the tests through the public door share: a server in this process, a server in a process of its own, an engine that can be
//! held, and readers of event streams.

mod app;
mod disk;
mod engine;
mod events;
mod folder;
mod hub;
mod lies;
mod model_info;
mod models;
mod process;
mod raw;
mod requests;
mod terms;

pub(crate) use app::{TestApp, TestClient, json_of, spawn_app};
pub(crate) use disk::Disk;
pub(crate) use engine::{Gate, LARGE_PREVIEWS_AT, PANICS_AT, TestEngine};
pub(crate) use events::{Events, SseEvent, sse_events};
pub(crate) use folder::files_under;
pub(crate) use hub::{COMMIT, Shelf, sha256, spawn_hub};
pub(crate) use lies::Lie;
pub(crate) use model_info::model_info;
pub(crate) use models::{
    copy_folder, cut_short, model_with_a_broken_vae, model_with_a_broken_word, model_with_an_overflowing_vae,
    model_with_an_unserved_scheduler,
};
pub(crate) use process::{Process, easel, easel_by, run};
pub(crate) use raw::{Raw, head};
pub(crate) use requests::{house_png, house_url, parameters_of, request, sha256s};
pub(crate) use terms::{BUSY, IDLE, terms};

/// Longer than anything that is tested takes, and short enough that a test which waits in vain ends.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
