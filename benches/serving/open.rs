//! The open loop: jobs arrive by chance, and do not wait for those before them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
    time::sleep_until,
};

use crate::{
    Options,
    classes::{Job, Mix},
    painting::{Outcome, paint},
    server::{Server, free_port},
    summary::Summary,
};

const SEED: u64 = 11;
/// Requests of a batch that is painted as a whole; the server's own `dispatch.max_canvases`.
const WHOLE_BATCH: usize = 16;

/// How jobs come to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// At once: the server lets them join at the next step.
    Steps,
    /// As a server does that batches whole requests: what waits begins together, when all that began before has ended.
    Whole,
}

/// Both ways with the same arrivals.
pub(crate) async fn run(
    options: &Options,
    settings: &[(&str, &str)],
    (mix, lone): (&Mix, &BTreeMap<&str, f64>),
    rate: f64,
) -> Value {
    let jobs = arrivals(mix.jobs(options.jobs), rate);
    let steps = measure(Way::Steps, settings, &jobs).await;
    let whole = measure(Way::Whole, settings, &jobs).await;
    let ratio = steps.percentile(0.95) / whole.percentile(0.95);
    println!("open loop, {rate:.2} jobs/s: p95 of step batching ÷ p95 of whole requests: {ratio:.2}");
    json!({
        "rate": rate,
        "step_batching": steps.to_json(lone, options.slo),
        "whole_requests": whole.to_json(lone, options.slo),
        "p95_ratio": ratio,
    })
}

/// Jobs with the moments at which they are wanted: a Poisson process.
fn arrivals(jobs: Vec<Job>, rate: f64) -> Vec<(Duration, Job)> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut at = 0.0;
    let arrive = |job| {
        at -= (1.0 - random.random_range(0.0..1.0_f64)).ln() / rate;
        (Duration::from_secs_f64(at), job)
    };
    jobs.into_iter().map(arrive).collect()
}

async fn measure(way: Way, settings: &[(&str, &str)], jobs: &[(Duration, Job)]) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), free_port(), settings).await;
    let (sender, receiver) = unbounded_channel();
    let start = Instant::now();
    let painter = tokio::spawn(match way {
        Way::Steps => painter(server.url.clone(), receiver, usize::MAX),
        Way::Whole => painter(server.url.clone(), receiver, WHOLE_BATCH),
    });
    for (at, job) in jobs {
        sleep_until((start + *at).into()).await;
        sender.send((start + *at, job.clone())).unwrap();
    }
    drop(sender);
    let outcomes = painter.await.unwrap();
    let summary = Summary::of(outcomes, start.elapsed(), &server.url).await;
    println!("open loop, {}: {summary}", if way == Way::Steps { "step batching" } else { "whole requests" });
    summary
}

/// Sends jobs in batches of at most so many, each when the one before has ended; without a bound, each at once.
async fn painter(url: String, mut jobs: UnboundedReceiver<(Instant, Job)>, batch: usize) -> Vec<Outcome> {
    let http = reqwest::Client::new();
    let (mut under_way, mut outcomes) = (JoinSet::new(), Vec::new());
    while let Some(first) = jobs.recv().await {
        let mut next = Some(first);
        let mut begun = 0;
        while let Some((wanted_at, job)) = next {
            let (http, url) = (http.clone(), url.clone());
            under_way.spawn(async move { paint(&http, &url, &job, wanted_at).await });
            begun += 1;
            next = if begun < batch { jobs.try_recv().ok() } else { None };
        }
        if batch < usize::MAX {
            outcomes.append(&mut std::mem::take(&mut under_way).join_all().await);
        }
    }
    outcomes.append(&mut under_way.join_all().await);
    outcomes
}
