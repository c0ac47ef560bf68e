//! Which models are on the device: loaded at the start or on first use, within a budget of bytes; the least recently used leave.
//!
//! A model is read on a thread of its own, into memory that the device's thread gets whole, so that canvases of other models go on
//! meanwhile. One is read at a time, into the pages that models which have left have freed (the allocator keeps those).
//! libtorch's thread count is not set there: MKL's is one for the whole process.

mod entry;
mod room;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{error, info};

use entry::{Entry, Place};
pub(super) use entry::{ModelHold, ModelId, ModelSource};
use room::{Room, Tenant, make_room};

use super::error::LoadError;
use crate::dispatch::ports::{EngineError, ModelEvent, ModelLoad, ModelReport, Prepared};

const MIB: u64 = 1 << 20;
/// How long a device that was out of memory is taken to hold no more than then: somebody else may have had the memory.
const SEEN_FOR: Duration = Duration::from_secs(600);

/// What the settings say about models that come and go.
#[derive(Debug, Clone)]
pub struct ResidencySettings {
    /// The most bytes of weights on the device; `None` is as many as it holds.
    pub memory: Option<u64>,
    /// Models that are not loaded at the start, by name.
    pub on_first_use: BTreeSet<String>,
    /// How long after a failure the jobs of a model fail at once, before its files are looked at again.
    pub retry: Duration,
    /// The longest that a model which has just been used is spared the jobs of others that are not claimed yet.
    pub rest: Duration,
}

impl Default for ResidencySettings {
    fn default() -> Self {
        Self { memory: None, on_first_use: BTreeSet::new(), retry: Duration::from_secs(30), rest: Duration::ZERO }
    }
}

/// The models of one device.
pub(super) struct Residency<M> {
    entries: Vec<Entry<M>>,
    settings: ResidencySettings,
    /// What the device was last seen to hold, and when: it had no room for one model more.
    seen: Option<(u64, Instant)>,
    uses: u64,
    events: Vec<ModelEvent>,
}

impl<M: Send + 'static> Residency<M> {
    /// Loads on this thread, in their order, the models that are not for later, as far as the budget goes. A model that cannot be loaded
    /// is logged, and fails its jobs.
    ///
    /// # Errors
    /// When there is no model that can be used: why the first cannot.
    pub(super) fn start(sources: Vec<Box<dyn ModelSource<M>>>, settings: ResidencySettings) -> Result<Self, LoadError> {
        let entries = sources.into_iter().map(|source| Entry::new(source.into())).collect();
        let mut residency = Self { entries, settings, seen: None, uses: 0, events: Vec::new() };
        let mut first_error = None;
        for place in 0..residency.entries.len() {
            if let Err(error) = residency.load_at_start(place) {
                residency.fail_at_start(place, &error);
                first_error.get_or_insert(error);
            }
        }
        match first_error {
            Some(error) if residency.entries.iter().all(Entry::has_failed) => Err(error),
            _ => Ok(residency),
        }
    }

    fn load_at_start(&mut self, place: usize) -> Result<(), LoadError> {
        let bytes = self.measure(place)?;
        let name = self.entries[place].name().to_owned();
        if self.settings.on_first_use.contains(&name) {
            return Ok(());
        }
        if self.budget().is_some_and(|budget| self.taken().saturating_add(bytes) > budget) {
            info!(model.name = name, model.bytes = bytes, "no room for this model at the start; its first job brings it");
            return Ok(());
        }
        let since = Instant::now();
        let model = self.entries[place].source.load()?;
        self.settle(place, model, since);
        Ok(())
    }

    fn fail_at_start(&mut self, place: usize, error: &LoadError) {
        let error = entry::unavailable(&*self.entries[place].source, error);
        self.entries[place].state = Place::Coming { since: Instant::now() };
        let name = self.entries[place].name().to_owned();
        // It may be for want of room only; any other failure is logged, and kept for its jobs.
        let _ = self.install(&name, Err(error));
    }

    /// As [`crate::dispatch::ports::Engine::prepare`], for a job that needs all of these models at once.
    pub(super) fn prepare(&mut self, names: &[&str]) -> Result<Prepared<M>, EngineError> {
        let places = names.iter().map(|name| self.find(name)).collect::<Result<Vec<_>, _>>()?;
        for &place in &places {
            if let Place::Failed { error, since } = &self.entries[place].state
                && since.elapsed() < self.settings.retry
            {
                return Err(error.clone());
            }
        }
        let Some(&missing) = places.iter().find(|&&place| !self.entries[place].is_here()) else {
            places.into_iter().for_each(|place| self.touch(place));
            return Ok(Prepared::Ready);
        };
        if self.entries.iter().any(Entry::is_coming) {
            return Ok(Prepared::Loading);
        }
        self.check_together(&places)?;
        if let Room::Occupied { leaving } = self.room_for(missing, &places) {
            return Ok(self.occupied(&leaving));
        }
        // The files may have changed since they were last measured; that they are whole is known before anybody leaves for them.
        if let Err(error) = self.measure(missing) {
            let error = entry::unavailable(&*self.entries[missing].source, &error);
            return Err(self.fail(missing, error));
        }
        self.check_together(&places)?;
        match self.room_for(missing, &places) {
            Room::Occupied { leaving } => Ok(self.occupied(&leaving)),
            Room::Free { evict } => Ok(Prepared::Load(self.bring(missing, &evict))),
        }
    }

    /// Refuses models that cannot be on the device together, whoever leaves.
    fn check_together(&self, places: &[usize]) -> Result<(), EngineError> {
        let bytes = places.iter().filter_map(|&place| self.entries[place].bytes).fold(0, u64::saturating_add);
        let Some(budget) = self.budget().filter(|&budget| places.len() > 1 && bytes > budget) else { return Ok(()) };
        let limit = match self.settings.memory {
            Some(memory) if memory <= budget => format!("device.model_memory_mib is {}", memory / MIB),
            _ => "the device was out of memory before it had both".to_owned(),
        };
        let reason = format!("together they take {} MiB, and {limit}", bytes.div_ceil(MIB));
        Err(EngineError::ModelUnavailable { model: self.names(places).join("\" and \""), reason })
    }

    /// The answer to a job that waits until these have left.
    fn occupied(&mut self, leaving: &[usize]) -> Prepared<M> {
        (0..).zip(&mut self.entries).for_each(|(place, entry)| entry.is_leaving = leaving.contains(&place));
        Prepared::Occupied { leaving: self.names(leaving) }
    }

    /// As [`crate::dispatch::ports::Engine::install`]. A model for which the device had no room beside others waits for them to leave.
    pub(super) fn install(&mut self, name: &str, loaded: Result<M, EngineError>) -> Result<(), EngineError> {
        let place = self.find(name)?;
        let Place::Coming { since } = self.entries[place].state else { return Ok(()) };
        match loaded {
            Ok(model) => {
                self.settle(place, model, since);
                // Until its job begins it must not be the one that was not used for longest; used it will be then.
                self.uses += 1;
                self.entries[place].used = self.uses;
            }
            Err(EngineError::OutOfMemory(problem)) if self.entries.iter().any(Entry::is_here) => {
                info!(model.name = name, problem, "the device has no room for one model more; others must leave for it");
                self.seen = Some((self.taken().saturating_sub(1), Instant::now()));
                self.entries[place].state = Place::Away;
            }
            Err(error) => return Err(self.fail(place, error)),
        }
        Ok(())
    }

    /// A hold on a model that is here: it does not leave while the hold lives.
    pub(super) fn hold(&self, name: &str) -> Result<ModelHold, EngineError> {
        let place = self.find(name)?;
        Ok(self.entries[place].hold(place))
    }

    /// The model that a hold keeps.
    pub(super) fn get(&self, hold: &ModelHold) -> Result<&M, EngineError> {
        match self.entries.get(hold.place()).map(|entry| &entry.state) {
            Some(Place::Here(model)) => Ok(model),
            _ => Err(EngineError::Failed("a model is not on the device that should be".to_owned())),
        }
    }

    /// Notes that a picture has been finished with the model. What is painted with it before a job has wanted it is a warm-up and no use.
    pub(super) fn note_use(&mut self, model: ModelId) {
        if self.entries[model.0].was_used() {
            self.touch(model.0);
        }
    }

    /// Where each model is.
    pub(super) fn reports(&self) -> Vec<ModelReport> {
        self.entries.iter().map(|entry| entry.report(self.settings.rest)).collect()
    }

    /// As [`crate::dispatch::ports::Engine::evict_idle`].
    pub(super) fn evict_idle(&mut self, stay: &[&str]) -> bool {
        let may_leave = |tenant: &Tenant| !tenant.is_busy && !stay.contains(&self.entries[tenant.place].name());
        let idle = self.tenants().filter(may_leave).min_by_key(|tenant| tenant.used);
        if let Some(Tenant { place, .. }) = idle {
            self.evict(place, "what is being painted");
        }
        idle.is_some()
    }

    /// What has happened since this was last asked.
    pub(super) fn take_events(&mut self) -> Vec<ModelEvent> {
        std::mem::take(&mut self.events)
    }

    /// How many models are here.
    pub(super) fn loaded(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_here()).count()
    }

    fn find(&self, name: &str) -> Result<usize, EngineError> {
        let found = self.entries.iter().position(|entry| entry.name() == name);
        found.ok_or_else(|| EngineError::UnknownModel(name.to_owned()))
    }

    fn names(&self, places: &[usize]) -> Vec<String> {
        places.iter().map(|&place| self.entries[place].name().to_owned()).collect()
    }

    /// As [`crate::dispatch::ports::Engine::model_memory`].
    pub(super) fn budget(&self) -> Option<u64> {
        let seen = self.seen.filter(|(_, when)| when.elapsed() < SEEN_FOR).map(|(bytes, _)| bytes);
        self.settings.memory.into_iter().chain(seen).min()
    }

    /// The models that are here or on their way.
    fn tenants(&self) -> impl Iterator<Item = Tenant> {
        self.entries.iter().enumerate().filter_map(|(place, entry)| entry.tenant(place))
    }

    /// Bytes of the models that are here or on their way.
    fn taken(&self) -> u64 {
        self.tenants().map(|tenant| tenant.bytes).sum()
    }

    /// Reads the headers of a model's files.
    fn measure(&mut self, place: usize) -> Result<u64, LoadError> {
        let entry = &mut self.entries[place];
        let bytes = entry.source.bytes()?;
        entry.bytes = Some(bytes);
        match self.settings.memory {
            Some(memory) if bytes > memory => {
                let (weights, memory) = (bytes.div_ceil(MIB), memory / MIB);
                let problem = format!("its weights take {weights} MiB, and device.model_memory_mib is {memory}");
                Err(LoadError::Invalid { path: entry.source.path().to_owned(), problem })
            }
            _ => Ok(bytes),
        }
    }

    /// The room for a model beside those of `stay`, which nobody may make leave.
    fn room_for(&self, place: usize, stay: &[usize]) -> Room {
        let (stay, others): (Vec<_>, Vec<_>) = self.tenants().partition(|tenant| stay.contains(&tenant.place));
        let taken = stay.iter().map(|tenant| tenant.bytes).sum::<u64>();
        let budget = self.budget().unwrap_or(u64::MAX).saturating_sub(taken);
        make_room(&others, self.entries[place].bytes.unwrap_or(0), budget)
    }

    /// Lets the models of `evict` go, and answers the work that brings another one.
    fn bring(&mut self, place: usize, evict: &[usize]) -> ModelLoad<M> {
        evict.iter().for_each(|&gone| self.evict(gone, "another model"));
        self.entries.iter_mut().for_each(|entry| entry.is_leaving = false);
        let entry = &mut self.entries[place];
        entry.state = Place::Coming { since: Instant::now() };
        let source = Arc::clone(&entry.source);
        if !evict.is_empty() {
            self.events.push(ModelEvent::Switched { model: source.name().to_owned() });
        }
        let model = source.name().to_owned();
        ModelLoad { model, work: Box::new(move || source.load().map_err(|error| entry::unavailable(&*source, &error))) }
    }

    /// The model leaves; `cause` is what for.
    fn evict(&mut self, place: usize, cause: &str) {
        let entry = &mut self.entries[place];
        entry.state = Place::Away;
        info!(model.name = entry.name(), "the model has left the device for {cause}");
        self.events.push(ModelEvent::Evicted { model: entry.name().to_owned() });
    }

    /// The model is here.
    fn settle(&mut self, place: usize, model: M, since: Instant) {
        let entry = &mut self.entries[place];
        entry.state = Place::Here(model);
        entry.loaded_in = since.elapsed();
        let (name, seconds) = (entry.name().to_owned(), entry.loaded_in.as_secs_f64());
        info!(model.name = name, model.bytes = entry.bytes, load.seconds = seconds, "model loaded");
        self.events.push(ModelEvent::Loaded { model: name, seconds });
    }

    /// The model cannot be had; answers what its jobs are told.
    fn fail(&mut self, place: usize, error: EngineError) -> EngineError {
        let entry = &mut self.entries[place];
        let model = entry.name().to_owned();
        let error = match error {
            known @ (EngineError::ModelUnavailable { .. } | EngineError::DeviceLost(_)) => known,
            other => EngineError::ModelUnavailable { model: model.clone(), reason: other.to_string() },
        };
        error!(model.name = model, model.path = %entry.source.path().display(), %error, "a model cannot be loaded");
        entry.state = Place::Failed { error: error.clone(), since: Instant::now() };
        self.events.push(ModelEvent::Failed { model });
        error
    }

    fn touch(&mut self, place: usize) {
        self.uses += 1;
        self.entries[place].touch(self.uses);
    }
}

#[cfg(test)]
mod tests;
