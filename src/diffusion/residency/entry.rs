//! One model of the settings, and where it is.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::room::Tenant;
use crate::{
    diffusion::error::{LoadError, engine_error},
    dispatch::ports::{EngineError, ModelReport},
    domain::{ModelState, ModelStatus},
};

/// However quickly a model loads, a client's next request takes this long to come.
const SHORTEST_REST: Duration = Duration::from_millis(250);

/// Where a model comes from.
pub(in crate::diffusion) trait ModelSource<M>: Send + Sync {
    /// The name that requests use.
    fn name(&self) -> &str;

    /// The folder or file.
    fn path(&self) -> &Path;

    /// How many bytes its weights take on the device, as the headers of its files tell.
    ///
    /// # Errors
    /// When a file is missing, cut short or no file of weights.
    fn bytes(&self) -> Result<u64, LoadError>;

    /// Reads the model to the device.
    ///
    /// # Errors
    /// When the files do not hold the model that its configs describe, or the device has no room.
    fn load(&self) -> Result<M, LoadError>;
}

/// Keeps a model on the device for as long as it lives. A canvas has one for each model that it needs.
#[derive(Debug, Clone)]
pub(in crate::diffusion) struct ModelHold {
    model: ModelId,
    _user: Arc<()>,
}

impl ModelHold {
    /// The model's place among those of the settings.
    pub(super) fn place(&self) -> usize {
        self.model.0
    }

    /// Which model it is, for when the hold is over.
    pub(in crate::diffusion) fn model(&self) -> ModelId {
        self.model
    }
}

/// A model's place among those of the settings.
#[derive(Debug, Clone, Copy)]
pub(in crate::diffusion) struct ModelId(pub(super) usize);

/// A model of the settings.
pub(super) struct Entry<M> {
    pub(super) source: Arc<dyn ModelSource<M>>,
    pub(super) state: Place<M>,
    /// Of its weights; what the files' headers said the last time.
    pub(super) bytes: Option<u64>,
    /// Every hold has a share in it.
    users: Arc<()>,
    /// How long the last load took.
    pub(super) loaded_in: Duration,
    /// It must leave for a job that waits.
    pub(super) is_leaving: bool,
    /// The number of its last use among all models', or of its coming.
    pub(super) used: u64,
    last_used: Option<Instant>,
    last_used_at: Option<Timestamp>,
}

/// Where a model is.
pub(super) enum Place<M> {
    Away,
    Coming { since: Instant },
    Here(M),
    Failed { error: EngineError, since: Instant },
}

impl<M> Entry<M> {
    pub(super) fn new(source: Arc<dyn ModelSource<M>>) -> Self {
        Self {
            source,
            state: Place::Away,
            bytes: None,
            users: Arc::default(),

            loaded_in: Duration::ZERO,
            is_leaving: false,
            used: 0,
            last_used: None,
            last_used_at: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.source.name()
    }

    pub(super) fn is_here(&self) -> bool {
        matches!(self.state, Place::Here(_))
    }

    pub(super) fn is_coming(&self) -> bool {
        matches!(self.state, Place::Coming { .. })
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.state, Place::Failed { .. })
    }

    pub(super) fn hold(&self, place: usize) -> ModelHold {
        ModelHold { model: ModelId(place), _user: Arc::clone(&self.users) }
    }

    pub(super) fn touch(&mut self, use_number: u64) {
        self.used = use_number;
        self.last_used = Some(Instant::now());
        self.last_used_at = Some(Timestamp::now());
    }

    /// Whether a job has ever wanted it.
    pub(super) fn was_used(&self) -> bool {
        self.last_used.is_some()
    }

    /// What it takes of the budget, if it does. A model on its way is busy: somebody waits for it.
    pub(super) fn tenant(&self, place: usize) -> Option<Tenant> {
        let is_busy = self.is_coming() || Arc::strong_count(&self.users) > 1;
        let stays = self.is_coming() || self.is_here();
        stays.then(|| Tenant { place, bytes: self.bytes.unwrap_or(0), is_busy, is_leaving: self.is_leaving, used: self.used })
    }

    /// When it has been idle for as long as another load of it would take, but no longer than `longest`: a client that sends one job at a
    /// time sends the next by then, if at all.
    fn rests_until(&self, longest: Duration) -> Option<Instant> {
        Some(self.last_used.filter(|_| self.is_here())? + self.loaded_in.max(SHORTEST_REST).min(longest))
    }

    pub(super) fn report(&self, longest_rest: Duration) -> ModelReport {
        let (state, error) = match &self.state {
            Place::Away => (ModelState::NotLoaded, None),
            Place::Coming { .. } => (ModelState::Loading, None),
            Place::Here(_) => (ModelState::Loaded, None),
            Place::Failed { error, .. } => (ModelState::Failed, Some(error.to_string())),
        };
        let status = ModelStatus { state, error, weights_bytes: self.bytes, last_used_at: self.last_used_at };
        ModelReport { model: self.name().to_owned(), status, rests_until: self.rests_until(longest_rest) }
    }
}

/// What the failure means for the jobs that want the model. They are told the file and the tensor, not where this machine keeps them.
pub(super) fn unavailable<M>(source: &dyn ModelSource<M>, error: &LoadError) -> EngineError {
    if let LoadError::Torch(error) = error {
        return engine_error(error);
    }
    let path = source.path().display().to_string();
    let reason = error.to_string().replace(&format!("{path}/"), "").replace(&format!("{path}: "), "");
    EngineError::ModelUnavailable { model: source.name().to_owned(), reason }
}
