//! What the rest of the server may know about the models of the device: clients, claims and metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use super::{
    ports::{ModelEvent, ModelReport, ModelTurn, ModelTurns},
    shared::lock,
};
use crate::{
    domain::{ModelState, ModelStatus},
    telemetry::Metrics,
};

/// The models as the device's thread last saw them. It writes, everybody reads; the lock is held for a few instructions.
#[derive(Debug, Default)]
pub(super) struct Residence(Mutex<View>);

#[derive(Debug, Default, PartialEq, Eq)]
struct View {
    reports: Vec<ModelReport>,
    leaving: Vec<String>,
}

impl Residence {
    /// Takes what the device's thread sees; answers whether it is news.
    pub(super) fn update(&self, reports: Vec<ModelReport>, leaving: &[String], metrics: &Metrics) -> bool {
        let mut bytes: Vec<(i64, &str)> = reports.iter().map(|report| (resident_bytes(&report.status), &*report.model)).collect();
        // Those that have left first, so that nobody who reads meanwhile sees more than there ever was.
        bytes.sort_unstable();
        bytes.iter().for_each(|(bytes, model)| metrics.model_resident_bytes.with_label_values(&[model]).set(*bytes));
        let view = View { reports, leaving: leaving.to_vec() };
        let mut present = lock(&self.0);
        let is_news = *present != view;
        *present = view;
        is_news
    }

    /// Where a model is.
    pub(super) fn status(&self, model: &str) -> ModelStatus {
        let view = lock(&self.0);
        view.reports.iter().find(|report| report.model == model).map(|report| report.status.clone()).unwrap_or_default()
    }

    /// How the models stand for the next claim, when these have been claimed for and the device has not seen it yet: they are as good as
    /// here, and until it has, nobody knows whether another one would fit beside them. Nor does one come while a job waits for room.
    pub(super) fn turns(&self, stay: Duration, claimed_for: &BTreeSet<String>) -> ModelTurns {
        let view = lock(&self.0);
        let turn = |report: &ModelReport| match report.status.state {
            _ if view.leaving.contains(&report.model) => Some(ModelTurn::Leaves),
            ModelState::Loaded | ModelState::Loading => Some(ModelTurn::Here),
            _ if claimed_for.contains(&report.model) => Some(ModelTurn::Here),
            _ if report.displaces || !claimed_for.is_empty() || !view.leaving.is_empty() => Some(ModelTurn::Displaces),
            ModelState::NotLoaded | ModelState::Failed => None,
        };
        let models: BTreeMap<_, _> = view.reports.iter().filter_map(|report| Some((report.model.clone(), turn(report)?))).collect();
        ModelTurns { stay, models }
    }
}

fn resident_bytes(status: &ModelStatus) -> i64 {
    match status.state {
        ModelState::Loaded | ModelState::Loading => i64::try_from(status.weights_bytes.unwrap_or(0)).unwrap_or(i64::MAX),
        ModelState::NotLoaded | ModelState::Failed => 0,
    }
}

/// Counts what has happened to models.
pub(super) fn count(events: Vec<ModelEvent>, metrics: &Metrics) {
    for event in events {
        match event {
            ModelEvent::Loaded { model, seconds } => {
                metrics.model_loads_total.with_label_values(&[&model]).inc();
                metrics.model_load_seconds.with_label_values(&[&model]).observe(seconds);
            }
            ModelEvent::Failed { model } => metrics.model_load_failures_total.with_label_values(&[&model]).inc(),
            ModelEvent::Evicted { model } => metrics.model_evictions_total.with_label_values(&[&model]).inc(),
            ModelEvent::Switched { .. } => metrics.model_switches_total.inc(),
        }
    }
}
