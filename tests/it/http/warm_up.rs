//! A server that warms up before anybody wants anything.

use std::time::Duration;

use easel::config::AutoOr;
use serde_json::json;

use crate::support::{TestApp, json_of, request};

#[tokio::test]
async fn a_server_that_has_warmed_up_knows_what_its_first_job_takes() {
    let app = TestApp::with(|config| config.device.warm_up = AutoOr(Some(true))).await;
    let is_known = async {
        while !app.get("/metrics").await.text().await.unwrap().contains("easel_step_estimate_seconds{model=\"demo\",rows=\"2\"}") {}
    };
    tokio::time::timeout(Duration::from_secs(60), is_known).await.unwrap();
    let last_used = async || json_of(app.get("/v1/models").await, 200).await["models"][0]["last_used_at"].clone();
    assert_eq!(last_used().await, json!(null), "nobody has used it");
    let job = app.submit(&request(json!({"num_inference_steps": 100}))).await;
    assert!(job["eta_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{job}");
    app.wait(&job).await;
    assert!(last_used().await.is_string());
    app.finish().await;
}
