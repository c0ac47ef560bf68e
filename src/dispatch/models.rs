//! What the rest of the server may know about the models of the device: clients, claims and metrics.

use std::{
    collections::BTreeSet,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{
    ports::{ModelEvent, ModelReport, ModelStanding, ModelTurns},
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
    memory: Option<u64>,
    leaving: Vec<String>,
}

impl Residence {
    /// Takes what the device's thread sees; answers whether it is news.
    pub(super) fn update(&self, (reports, memory): (Vec<ModelReport>, Option<u64>), leaving: &[String], metrics: &Metrics) -> bool {
        let mut bytes: Vec<(i64, &str)> = reports.iter().map(|report| (resident_bytes(&report.status), &*report.model)).collect();
        // Those that have left first, so that nobody who reads meanwhile sees more than there ever was.
        bytes.sort_unstable();
        bytes.iter().for_each(|(bytes, model)| metrics.model_resident_bytes.with_label_values(&[model]).set(*bytes));
        let view = View { reports, memory, leaving: leaving.to_vec() };
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

    /// How the models stand for the next claim, when there are claims for these.
    pub(super) fn turns(&self, stay: Duration, claimed_for: &BTreeSet<String>) -> ModelTurns {
        let (view, now) = (lock(&self.0), Instant::now());
        let standing = |report: &ModelReport| {
            let is_claimed_for = claimed_for.contains(&report.model);
            ModelStanding {
                // One that cannot be loaded takes no room: its jobs are to learn so at once.
                bytes: report.status.weights_bytes.filter(|_| report.status.state != ModelState::Failed).unwrap_or(0),
                is_here: is_claimed_for || is_resident(&report.status),
                is_busy: is_claimed_for || report.rests_until.is_some_and(|until| until > now),
                leaves: view.leaving.contains(&report.model),
            }
        };
        let models = view.reports.iter().map(|report| (report.model.clone(), standing(report))).collect();
        ModelTurns { stay, models, memory: view.memory }
    }

    /// How long it is until a model has rested after its last use, and others may come that could not before.
    pub(super) fn rest(&self) -> Option<Duration> {
        let now = Instant::now();
        let left = |report: &ModelReport| report.rests_until?.checked_duration_since(now);
        lock(&self.0).reports.iter().filter_map(left).min()
    }
}

fn resident_bytes(status: &ModelStatus) -> i64 {
    let bytes = status.weights_bytes.filter(|_| is_resident(status)).unwrap_or(0);
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn is_resident(status: &ModelStatus) -> bool {
    matches!(status.state, ModelState::Loaded | ModelState::Loading)
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
