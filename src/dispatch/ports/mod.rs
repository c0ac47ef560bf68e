//! The doors of the dispatcher: what it needs from an engine, a job store, a picture store and an event bus, and nothing more.
//!
//! The rooms behind the doors (`diffusion`, `store`) implement these traits and know nothing of each other.

mod engine;
mod error;
mod events;
mod jobs;
mod marks;
mod models;
mod pictures;
mod turns;

pub use engine::{BatchKey, Begun, CanvasState, Engine, EngineError, IntoRgb, PaintOrder, PromptLookups};
pub use error::StoreError;
pub use events::{EventBus, Numbered, Subscription};
pub use jobs::{
    Admitted, Cancellation, ClaimOutcome, DeviceView, JobCounts, JobPage, JobQuery, JobStore, Lease, Outcome, Quota, Quotas,
    Recovery, Removal, Renewal, Settlement, Terms,
};
pub use marks::{Line, Mark};
pub use models::{ModelEvent, ModelLoad, ModelReport, Prepared};
pub use pictures::{PictureKey, PictureStore, StoredInput};
pub use turns::{ModelStanding, ModelTurns, QueueHead};
