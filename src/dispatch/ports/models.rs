//! Models that come to the device and leave it: what the engine says about them.

use std::{fmt, time::Instant};

use super::EngineError;
use crate::domain::ModelStatus;

/// An answer to [`super::Engine::prepare`].
pub enum Prepared<M> {
    /// The models are on the device.
    Ready,
    /// There is room for one that is not: this work brings it.
    Load(ModelLoad<M>),
    /// One is on its way, perhaps for another job: one is loaded at a time.
    Loading,
    /// Models must leave first of which some have canvases.
    Occupied {
        /// Which must leave, those without canvases as well; nothing new should begin with them.
        leaving: Vec<String>,
    },
}

/// The work of loading a model. It takes long and touches nothing of the engine, so it belongs on a thread of its own; what it answers
/// goes to [`super::Engine::install`].
pub struct ModelLoad<M> {
    /// The model that it brings.
    pub model: String,
    /// The work.
    pub work: Box<dyn FnOnce() -> Result<M, EngineError> + Send>,
}

impl<M> fmt::Debug for Prepared<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "Ready",
            Self::Load(_) => "Load",
            Self::Loading => "Loading",
            Self::Occupied { .. } => "Occupied",
        })
    }
}

impl<M> fmt::Debug for ModelLoad<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelLoad").field("model", &self.model).finish_non_exhaustive()
    }
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelReport {
    /// The model.
    pub model: String,
    /// What clients may know.
    pub status: ModelStatus,
    /// Until then more work for it may be about to come, since it has just been used.
    pub rests_until: Option<Instant>,
}

/// Something that has happened to a model.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelEvent {
    /// It is on the device.
    Loaded {
        /// The model.
        model: String,
        /// Seconds that this took.
        seconds: f64,
    },
    /// It could not be loaded.
    Failed {
        /// The model.
        model: String,
    },
    /// It has left the device, for another one or for canvases that were out of memory.
    Evicted {
        /// The model.
        model: String,
    },
    /// One or more models have left for this one.
    Switched {
        /// The model that comes.
        model: String,
    },
}
