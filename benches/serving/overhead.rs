//! What a job costs outside the engine, from its own timings: one client, one job after the other.

use serde_json::{Value, json};

use crate::{
    server::{Server, free_port},
    work::request,
};

const JOBS: usize = 30;

pub(crate) async fn run(settings: &[(&str, &str)]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), free_port(), settings).await;
    let http = reqwest::Client::new();
    let mut outside = Vec::new();
    for index in 0..JOBS {
        let post = http.post(format!("{}/v1/generate", server.url)).header("Prefer", "wait=60").json(&request(10 * index));
        let job: Value = post.send().await.unwrap().json().await.unwrap();
        let stage = |name: &str| job["timings"][name].as_f64().unwrap();
        outside.push(stage("total_ms") - stage("encode_ms") - stage("denoise_ms") - stage("decode_ms"));
    }
    outside.sort_by(f64::total_cmp);
    let (p50, p95) = (outside[JOBS / 2], outside[JOBS * 95 / 100]);
    println!("outside the engine (HTTP, queue, store, PNG): p50 {p50:.1} ms, p95 {p95:.1} ms");
    json!({"p50_ms": p50, "p95_ms": p95})
}
