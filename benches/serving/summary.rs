//! What a run comes to.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use crate::painting::Outcome;

/// The jobs of a run and the time that they took together.
#[derive(Debug)]
pub(crate) struct Summary {
    outcomes: Vec<Outcome>,
    seconds: f64,
    /// The mean of `easel_step_canvases`.
    canvases: f64,
}

impl Summary {
    /// Asks the server how full its steps were. A run with jobs that failed, which are quick, is none.
    pub(crate) async fn of(outcomes: Vec<Outcome>, time: Duration, url: &str) -> Self {
        let metrics = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        let value = |name: &str| -> f64 { metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap() };
        let canvases = value("easel_step_canvases_sum ") / value("easel_step_canvases_count ");
        let failed = outcomes.iter().filter(|outcome| !outcome.succeeded).count();
        assert_eq!(failed, 0, "of {} jobs; what is left says nothing of a server under load", outcomes.len());
        Self { outcomes, seconds: time.as_secs_f64(), canvases }
    }

    /// Jobs a second; a job is one picture.
    pub(crate) fn rate(&self) -> f64 {
        self.outcomes.len() as f64 / self.seconds
    }

    /// The latency in seconds below which this share of all jobs is.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        percentile(self.outcomes.iter(), share)
    }

    /// Everything; a job is in time when it took at most `slo` times as long as one of its class takes alone.
    pub(crate) fn to_json(&self, lone: &BTreeMap<&str, f64>, slo: f64) -> Value {
        let in_time = |outcome: &&Outcome| outcome.latency.as_secs_f64() <= slo * lone[outcome.class];
        let class = |name: &&str| {
            let own = || self.outcomes.iter().filter(|outcome| outcome.class == *name);
            let count = own().count();
            let described = json!({
                "jobs": count,
                "p50": percentile(own(), 0.5),
                "p95": percentile(own(), 0.95),
                "in_time": own().filter(in_time).count() as f64 / count.max(1) as f64,
            });
            ((*name).to_owned(), described)
        };
        json!({
            "jobs": self.outcomes.len(),
            "seconds": self.seconds,
            "jobs_per_second": self.rate(),
            "canvases_a_step": self.canvases,
            "p50": self.percentile(0.5),
            "p95": self.percentile(0.95),
            "in_time": self.outcomes.iter().filter(in_time).count() as f64 / self.outcomes.len() as f64,
            "classes": lone.keys().map(class).collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outcomes, seconds, canvases } = self;
        let (rate, p50, p95) = (self.rate(), self.percentile(0.5), self.percentile(0.95));
        write!(f, "{} jobs, {seconds:.1} s, {rate:.2} pictures/s; latency p50 {p50:.2} s, p95 {p95:.2} s; ", outcomes.len())?;
        write!(f, "canvases a step {canvases:.2}")
    }
}

/// The smallest latency that at least this share of the jobs does not exceed; 0 of none.
fn percentile<'a>(outcomes: impl Iterator<Item = &'a Outcome>, share: f64) -> f64 {
    let mut latencies: Vec<f64> = outcomes.map(|outcome| outcome.latency.as_secs_f64()).collect();
    latencies.sort_by(f64::total_cmp);
    let place = (share * latencies.len() as f64).ceil() as usize;
    latencies.get(place.saturating_sub(1)).copied().unwrap_or_default()
}
