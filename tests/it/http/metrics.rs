//! What `/metrics` says after work was done.

use std::collections::BTreeSet;

use serde_json::json;
use tokio::time::timeout;

use crate::support::{PANICS_AT, PATIENCE, TestApp, request, spawn_app};

async fn text(app: &TestApp) -> String {
    app.get("/metrics").await.text().await.unwrap()
}

/// The values of a label.
fn labels(text: &str, label: &str) -> BTreeSet<String> {
    let marked = format!("{label}=\"");
    let values = text.lines().filter_map(|line| Some(line.split_once(&marked)?.1.split_once('"')?.0.to_owned()));
    values.collect()
}

#[tokio::test]
async fn what_a_job_took_is_counted_by_stage_and_status() {
    let app = spawn_app().await;
    app.paint(&request(json!({"num_inference_steps": 3}))).await;
    let answer = app.get("/metrics").await;
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for (name, value) in [
        ("easel_jobs_accepted_total", 1.0),
        ("easel_jobs_total{status=\"succeeded\"}", 1.0),
        ("easel_queue_wait_seconds_count", 1.0),
        ("easel_step_seconds_count", 3.0),
        ("easel_step_canvases_count", 3.0),
        ("easel_step_canvases_sum", 3.0),
        ("easel_queue_depth", 0.0),
        ("easel_previews_dropped_total", 0.0),
    ] {
        assert_eq!(app.metric(name).await, value, "{name}");
    }
    // The device says so when it has sent the job's end.
    let is_empty = async { while app.metric("easel_device_canvases").await != 0.0 {} };
    timeout(PATIENCE, is_empty).await.expect("a canvas is counted after its job's end");
    for stage in ["queue", "encode", "denoise", "decode", "store"] {
        assert_eq!(app.metric(&format!("easel_stage_seconds_count{{stage=\"{stage}\"}}")).await, 1.0, "{stage}");
    }
    assert!(app.metric("easel_stage_seconds_sum{stage=\"denoise\"}").await > 0.0);
    let posts = "easel_http_requests_total{method=\"POST\",route=\"/v1/generate\",status=\"200\"}";
    assert_eq!(app.metric(posts).await, 1.0);
    app.finish().await;
}

#[tokio::test]
async fn nothing_that_a_client_chooses_becomes_a_label() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let id = job["id"].as_str().unwrap();
    for path in ["/v1/secret-address", "/v1/jobs/secret", &format!("/v1/jobs/{id}"), &format!("/v1/jobs/{id}/images/0")] {
        app.get(path).await;
    }
    app.request("BREW", "/v1/generate").send().await.unwrap();
    app.post(&json!({"prompt": "a", "secret": 1})).await;
    let text = text(&app).await;
    assert!(!text.contains(id) && !text.contains("secret") && !text.contains("BREW"), "{text}");
    let patterns = ["/v1/generate", "/v1/jobs/{id}", "/v1/jobs/{id}/images/{index}", "unmatched"];
    assert_eq!(labels(&text, "route"), patterns.map(str::to_owned).into());
    assert_eq!(labels(&text, "method"), ["GET", "OTHER", "POST"].map(str::to_owned).into());
    app.finish().await;
}

#[tokio::test]
async fn jobs_that_fail_or_are_cancelled_are_counted_apart() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let failing = app.submit(&request(json!({"prompt": PANICS_AT}))).await;
    gate.arrival().await;
    let cancelled = app.submit(&request(json!({}))).await;
    app.cancel(&cancelled).await;
    drop(gate);
    app.wait(&failing).await;
    for (status, count) in [("failed", 1.0), ("cancelled", 1.0)] {
        assert_eq!(app.metric(&format!("easel_jobs_total{{status=\"{status}\"}}")).await, count, "{status}");
    }
    app.finish().await;
}
