//! The closed loop: as many jobs under way as there are clients.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    Options,
    classes::{Job, Mix},
    painting::{Outcome, paint},
    server::{Server, free_port},
    summary::Summary,
};

/// Step batching and one canvas at a time in turns; answers both and their ratios.
pub(crate) async fn run(options: &Options, settings: &[(&str, &str)], (mix, lone): (&Mix, &BTreeMap<&str, f64>)) -> Value {
    let (mut batched, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        batched.push(measure("step batching", options, settings, mix).await);
        let one = [settings, &[("EASEL__DISPATCH__MAX_CANVASES", "1")]].concat();
        alone.push(measure("one at a time", options, &one, mix).await);
    }
    let ratios: Vec<f64> = batched.iter().zip(&alone).map(|(batched, alone)| batched.rate() / alone.rate()).collect();
    println!("closed loop, {} clients: step batching ÷ one at a time, pictures/s: {ratios:.2?}", options.clients);
    let summaries = |all: &[Summary]| all.iter().map(|summary| summary.to_json(lone, options.slo)).collect::<Vec<_>>();
    json!({"clients": options.clients, "step_batching": summaries(&batched), "one_at_a_time": summaries(&alone), "ratios": ratios})
}

async fn measure(name: &str, options: &Options, settings: &[(&str, &str)], mix: &Mix) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), free_port(), settings).await;
    let (jobs, next) = (Arc::new(mix.jobs(options.jobs)), Arc::new(AtomicUsize::new(0)));
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..options.clients {
        clients.spawn(client(server.url.clone(), jobs.clone(), next.clone()));
    }
    let outcomes = clients.join_all().await.into_iter().flatten().collect();
    let summary = Summary::of(outcomes, start.elapsed(), &server.url).await;
    println!("closed loop, {name}: {summary}");
    summary
}

/// Takes the next job whenever the last one is done.
async fn client(url: String, jobs: Arc<Vec<Job>>, next: Arc<AtomicUsize>) -> Vec<Outcome> {
    let http = reqwest::Client::new();
    let mut outcomes = Vec::new();
    while let Some(job) = jobs.get(next.fetch_add(1, SeqCst)) {
        outcomes.push(paint(&http, &url, job, Instant::now()).await);
    }
    outcomes
}
