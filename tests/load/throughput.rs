//! 100 jobs from 10 clients: latency, pictures a second, and what step batching brings over one canvas at a time, side by side.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    server::{Server, free_port},
    work::request,
};

const JOBS: usize = 100;
const CLIENTS: usize = 10;
const ROUNDS: usize = 2;
const LONE_JOBS: usize = 30;

pub(crate) async fn run() {
    for invariant in ["true", "false"] {
        let (mut batched, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            batched.push(measure(invariant, "16").await);
            alone.push(measure(invariant, "1").await);
        }
        let ratios: Vec<f64> = batched.iter().zip(&alone).map(|(batched, alone)| batched / alone).collect();
        println!("batch_invariant={invariant}: step batching ÷ one canvas at a time, pictures/s: {ratios:.2?}");
    }
    overhead().await;
}

/// One run of all jobs; answers pictures a second.
async fn measure(invariant: &str, canvases: &str) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("EASEL__DEVICE__BATCH_INVARIANT", invariant), ("EASEL__DISPATCH__MAX_CANVASES", canvases)];
    let server = Server::start(folder.path(), free_port(), &settings).await;
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(paint_jobs(server.url.clone(), client));
    }
    let jobs: Vec<(Value, Duration)> = clients.join_all().await.into_iter().flatten().collect();
    let seconds = start.elapsed().as_secs_f64();
    let failed = jobs.iter().filter(|(job, _)| job["status"] != "succeeded").count();
    let pictures: usize = jobs.iter().map(|(job, _)| job["images"].as_array().unwrap().len()).sum();
    let mut latencies: Vec<f64> = jobs.iter().map(|(_, latency)| latency.as_secs_f64()).collect();
    latencies.sort_by(f64::total_cmp);
    let rate = pictures as f64 / seconds;
    println!(
        "batch_invariant={invariant} max_canvases={canvases}: {} jobs, {failed} failed, {pictures} pictures in {seconds:.1} s = {rate:.2}/s; \
         latency p50 {:.2} s, p95 {:.2} s; canvases a step {:.2}",
        jobs.len(),
        latencies[jobs.len() / 2],
        latencies[jobs.len() * 95 / 100],
        step_canvases(&server.url).await,
    );
    assert_eq!((jobs.len(), failed), (JOBS, 0));
    rate
}

/// One client's share of the jobs, one after the other.
async fn paint_jobs(url: String, client: usize) -> Vec<(Value, Duration)> {
    let http = reqwest::Client::new();
    let mut jobs = Vec::new();
    for index in (client..JOBS).step_by(CLIENTS) {
        let start = Instant::now();
        jobs.push((paint(&http, &url, index).await, start.elapsed()));
    }
    jobs
}

async fn paint(http: &reqwest::Client, url: &str, index: usize) -> Value {
    let post = http.post(format!("{url}/v1/generate")).header("Prefer", "wait=60").json(&request(index));
    post.send().await.unwrap().json().await.unwrap()
}

/// The mean of `easel_step_canvases`.
async fn step_canvases(url: &str) -> f64 {
    let metrics = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    let value = |name: &str| -> f64 { metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap() };
    value("easel_step_canvases_sum ") / value("easel_step_canvases_count ")
}

/// What a job costs outside the engine, from its own timings: one client, one job after the other.
async fn overhead() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), free_port(), &[]).await;
    let http = reqwest::Client::new();
    let mut outside = Vec::new();
    for index in 0..LONE_JOBS {
        let job = paint(&http, &server.url, 10 * index).await;
        let stage = |name: &str| job["timings"][name].as_f64().unwrap();
        outside.push(stage("total_ms") - stage("encode_ms") - stage("denoise_ms") - stage("decode_ms"));
    }
    outside.sort_by(f64::total_cmp);
    println!(
        "outside the engine (HTTP, queue, store, PNG): p50 {:.1} ms, p95 {:.1} ms",
        outside[LONE_JOBS / 2],
        outside[LONE_JOBS * 95 / 100]
    );
}
