//! Two models where one fits: a mixed load, and what the changes between them cost.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    server::{Server, free_port},
    work::request,
};

const JOBS: usize = 80;
const CLIENTS: usize = 8;
const MODELS: [&str; 2] = ["one", "two"];
/// One demo model in float32 takes 67 MiB.
const BUDGET_MIB: u64 = 100;
/// Short, so that a run of a minute sees several changes.
const STAY_SECONDS: [&str; 2] = ["0", "10"];

pub(crate) async fn run() {
    for stay in STAY_SECONDS {
        measure(stay).await;
    }
}

async fn measure(stay: &str) {
    let folder = tempfile::tempdir().unwrap();
    let settings = write_settings(folder.path());
    let settings = [("EASEL_CONFIG", settings.as_str()), ("EASEL__DISPATCH__MODEL_STAY_SECONDS", stay)];
    let server = Server::start(folder.path(), free_port(), &settings).await;
    let done = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(largest_resident_bytes(server.url.clone(), done.clone()));
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(paint_jobs(server.url.clone(), client));
    }
    let jobs: Vec<Value> = clients.join_all().await.into_iter().flatten().collect();
    let seconds = start.elapsed().as_secs_f64();
    done.store(true, Ordering::SeqCst);
    let largest = watcher.await.unwrap();
    let metrics = metrics(&server.url).await;
    let count = |name: &str| total(&metrics, name);
    println!(
        "model_stay_seconds={stay}: {} jobs in {seconds:.1} s; loads {}, evictions {}, switches {}; largest resident {:.1} of {BUDGET_MIB} MiB",
        jobs.len(),
        count("easel_model_loads_total"),
        count("easel_model_evictions_total"),
        count("easel_model_switches_total"),
        largest / f64::from(1 << 20),
    );
    for (model, mut waits) in waits_by_model(&jobs) {
        waits.sort_by(f64::total_cmp);
        println!(
            "  {model}: {} jobs, wait p50 {:.2} s, p95 {:.2} s",
            waits.len(),
            waits[waits.len() / 2],
            waits[waits.len() * 95 / 100]
        );
    }
    assert!(largest <= (BUDGET_MIB << 20) as f64, "the budget does not hold");
    assert!(jobs.iter().all(|job| job["status"] == "succeeded"));
}

fn write_settings(folder: &Path) -> String {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
    let models = MODELS.map(|name| format!("[[models]]\nname = \"{name}\"\npath = \"{demo}\"\nguidance_scale = 5.0\n"));
    let file = folder.join("models.toml");
    std::fs::write(&file, format!("[device]\nmodel_memory_mib = {BUDGET_MIB}\n{}", models.join(""))).unwrap();
    file.display().to_string()
}

/// One client's share of the jobs, one after the other, in turns of the models.
async fn paint_jobs(url: String, client: usize) -> Vec<Value> {
    let http = reqwest::Client::new();
    let mut jobs = Vec::new();
    for (turn, index) in (client..JOBS).step_by(CLIENTS).enumerate() {
        let mut body = request(index);
        body["model"] = json!(MODELS[(client + turn) % MODELS.len()]);
        let post = http.post(format!("{url}/v1/generate")).header("Prefer", "wait=60").json(&body);
        jobs.push(post.send().await.unwrap().json().await.unwrap());
    }
    jobs
}

/// Seconds of each job in which nothing was done for it: in the queue, and on the device while its model came.
fn waits_by_model(jobs: &[Value]) -> BTreeMap<String, Vec<f64>> {
    let mut waits = BTreeMap::<String, Vec<f64>>::new();
    for job in jobs {
        let model = job["request"]["model"].as_str().unwrap().to_owned();
        let stage = |name: &str| job["timings"][name].as_f64().unwrap() / 1000.0;
        let work = ["encode_ms", "denoise_ms", "decode_ms", "store_ms"].map(stage).iter().sum::<f64>();
        waits.entry(model).or_default().push(stage("total_ms") - work);
    }
    waits
}

async fn largest_resident_bytes(url: String, done: Arc<AtomicBool>) -> f64 {
    let mut largest = 0.0_f64;
    while !done.load(Ordering::SeqCst) {
        largest = largest.max(total(&metrics(&url).await, "easel_model_resident_bytes"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    largest
}

async fn metrics(url: &str) -> String {
    reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap()
}

/// The sum of a metric over its labels.
fn total(metrics: &str, name: &str) -> f64 {
    let values =
        metrics.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}
