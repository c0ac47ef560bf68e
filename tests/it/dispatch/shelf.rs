//! Models that take no memory and fail on command, so that a test says when they come.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Instant,
};

use easel::{
    dispatch::ports::{EngineError, ModelLoad, ModelReport, Prepared},
    domain::{ModelState, ModelStatus},
};

/// The models of the fake engine.
pub(super) const MODELS: [&str; 4] = ["counter", "second", "third", BROKEN];
/// The model that cannot be loaded.
pub(super) const BROKEN: &str = "broken";

/// The models on the device, the least recently used first.
pub(super) struct Shelf {
    /// So many fit; all are there from the start when no number is given.
    capacity: Option<usize>,
    here: Vec<(String, Arc<()>)>,
    coming: Option<String>,
    /// Until then a model that nobody uses any more is spared those whose jobs are not claimed yet.
    pub(super) rests_until: Option<Instant>,
    /// Each load waits for one message; all are free when the sender is gone.
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self { capacity: None, here: Vec::new(), coming: None, rests_until: None, gate: Arc::new(Mutex::new(channel().1)) }
    }
}

impl Shelf {
    /// A shelf for so many models, empty at the start, whose loads wait at a gate.
    pub(super) fn of(capacity: usize, gate: Receiver<()>) -> Self {
        Self { capacity: Some(capacity), gate: Arc::new(Mutex::new(gate)), ..Self::default() }
    }

    pub(super) fn prepare(&mut self, model: &str) -> Prepared<String> {
        let Some(capacity) = self.capacity else { return Prepared::Ready };
        if self.here.iter().any(|(here, _)| here == model) {
            return Prepared::Ready;
        }
        if self.coming.is_some() {
            return Prepared::Loading;
        }
        if self.here.len() >= capacity {
            let Some(idle) = self.here.iter().position(|(_, users)| Arc::strong_count(users) == 1) else {
                return Prepared::Occupied { leaving: vec![self.here[0].0.clone()] };
            };
            self.here.remove(idle);
        }
        self.coming = Some(model.to_owned());
        let (name, gate) = (model.to_owned(), self.gate.clone());
        let work = Box::new(move || {
            let _ = gate.lock().unwrap().recv();
            assert_ne!(name, BROKEN, "a file that nobody can read");
            Ok(name)
        });
        Prepared::Load(ModelLoad { model: model.to_owned(), work })
    }

    pub(super) fn install(&mut self, model: &str, loaded: Result<String, EngineError>) -> Result<(), EngineError> {
        assert_eq!(self.coming.take().as_deref(), Some(model));
        self.here.push((loaded?, Arc::new(())));
        Ok(())
    }

    /// A share in the model, which keeps it here.
    pub(super) fn hold(&mut self, model: &str) -> Arc<()> {
        let Some(place) = self.here.iter().position(|(here, _)| here == model) else {
            assert!(self.capacity.is_none(), "the model {model} is not on the device");
            return Arc::new(());
        };
        let used = self.here.remove(place);
        let share = used.1.clone();
        self.here.push(used);
        share
    }

    /// How many models nobody uses.
    pub(super) fn idle(&self) -> usize {
        self.here.iter().filter(|(_, users)| Arc::strong_count(users) == 1).count()
    }

    /// Each model takes one byte.
    pub(super) fn memory(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity as u64)
    }

    pub(super) fn evict_idle(&mut self, stay: &[&str]) -> bool {
        let idle = self.here.iter().position(|(model, users)| Arc::strong_count(users) == 1 && !stay.contains(&model.as_str()));
        idle.map(|place| self.here.remove(place)).is_some()
    }

    pub(super) fn reports(&self) -> Vec<ModelReport> {
        let report = |model: &str| {
            let is_here = self.capacity.is_none() || self.here.iter().any(|(here, _)| here == model);
            let is_coming = self.coming.as_deref() == Some(model);
            let state = match (is_here, is_coming) {
                (true, _) => ModelState::Loaded,
                (_, true) => ModelState::Loading,
                _ => ModelState::NotLoaded,
            };
            let status = ModelStatus { state, weights_bytes: Some(1), ..ModelStatus::default() };
            ModelReport { model: model.to_owned(), status, rests_until: self.rests_until.filter(|_| is_here) }
        };
        MODELS.map(report).to_vec()
    }
}
