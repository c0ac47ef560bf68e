//! Where a model is: on the device, on its way to it, or not.

use jiff::Timestamp;
use serde::Serialize;

/// What a model is doing now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// On the device.
    Loaded,
    /// On its way to the device.
    #[default]
    Loading,
    /// Not on the device; its next job brings it there.
    NotLoaded,
    /// It could not be loaded. A later job tries again.
    Failed,
}

/// What a client may know about a model beside what requests are parsed against.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ModelStatus {
    /// What it is doing.
    pub state: ModelState,
    /// Why it could not be loaded the last time.
    pub error: Option<String>,
    /// Bytes of its weights on the device; `None` until they are known.
    pub weights_bytes: Option<u64>,
    /// When a job last began or finished a picture with it.
    pub last_used_at: Option<Timestamp>,
}
