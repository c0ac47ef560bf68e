//! What is told of a job's end before it comes, and jobs that must end by then.

use std::time::Duration;

use serde_json::json;

use crate::support::{TestApp, json_of, request, spawn_app};

#[tokio::test]
async fn when_a_job_will_be_done_is_unknown_until_something_was_measured_and_then_told() {
    let (app, mut gate) = TestApp::gated_at(Duration::from_secs(100), |config| config.dispatch.max_canvases = 1).await;
    let first = app.submit(&request(json!({"num_inference_steps": 20}))).await;
    assert!(first["eta_seconds"].is_null());
    for _ in 0..3 {
        gate.arrival().await;
        gate.pass();
    }
    gate.arrival().await;
    let running = app.job(&first).await["eta_seconds"].as_f64();
    let waiting = app.submit(&request(json!({"num_inference_steps": 20}))).await;
    let behind = waiting["eta_seconds"].as_f64();
    assert!(running.is_some() && behind > running, "{running:?} {behind:?}");
    drop(gate);
    for job in [&first, &waiting] {
        let ended = app.wait(job).await;
        assert_eq!((&ended["status"], &ended["eta_seconds"]), (&json!("succeeded"), &json!(null)));
    }
    assert_eq!(app.metric("easel_estimate_ratio_count").await, 1.0, "nothing was expected of the first");
    app.finish().await;
}

#[tokio::test]
async fn a_job_that_would_miss_its_deadline_is_refused_and_told_when_to_come_back() {
    let (app, mut gate) = TestApp::gated_at(Duration::from_secs(1), |config| config.dispatch.max_canvases = 1).await;
    let running = app.submit(&request(json!({"num_inference_steps": 150, "num_images": 16}))).await;
    for _ in 0..3 {
        gate.arrival().await;
        gate.pass();
    }
    gate.arrival().await;
    let refused = app.post(&request(json!({"deadline_seconds": 60}))).await;
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    let problem = json_of(refused, 503).await;
    assert_eq!((&problem["code"], &problem["title"]), (&json!("deadline_unreachable"), &json!("The deadline cannot be kept")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("the job would be done in about ") && detail.ends_with(" s, and its deadline_seconds are 60"),
        "{detail}"
    );
    // Sixteen pictures of 150 steps, one by one, and then this job's; it may come back a minute before those are done.
    assert!((2000..=2400).contains(&seconds), "{seconds}");
    let patient = app.submit(&request(json!({"deadline_seconds": 3600}))).await;
    assert_eq!(patient["request"]["deadline_seconds"], 3600);
    app.cancel(&running).await;
    drop(gate);
    assert_eq!(app.wait(&patient).await["status"], "succeeded");
    app.wait(&running).await;
    app.finish().await;
}

#[tokio::test]
async fn a_job_that_nobody_is_in_the_way_of_is_taken_whatever_was_measured_before() {
    let (app, mut gate) = TestApp::gated_at(Duration::from_secs(1), |config| config.dispatch.max_canvases = 1).await;
    let measured = app.submit(&request(json!({"num_inference_steps": 4}))).await;
    for _ in 0..4 {
        gate.arrival().await;
        gate.pass();
    }
    assert_eq!(app.wait(&measured).await["status"], "succeeded");
    let hopeless = request(json!({"num_inference_steps": 150, "num_images": 16, "deadline_seconds": 600}));
    let taken = app.submit(&hopeless).await;
    assert!(taken["eta_seconds"].as_f64() > Some(600.0), "{taken}");
    gate.arrival().await;
    assert_eq!(json_of(app.post(&hopeless).await, 503).await["code"], "deadline_unreachable", "behind another");
    app.cancel(&taken).await;
    drop(gate);
    app.wait(&taken).await;
    app.finish().await;
}

#[tokio::test]
async fn a_job_whose_deadline_passes_while_it_waits_fails_without_a_step() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let running = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let waiting = app.submit(&request(json!({"deadline_seconds": 1}))).await;
    let failed = app.wait(&waiting).await;
    assert_eq!((&failed["status"], &failed["attempts"]), (&json!("failed"), &json!(0)));
    assert_eq!(
        failed["error"],
        json!({"code": "deadline_exceeded", "message": "the job was not done within 1 s, its deadline_seconds"})
    );
    drop(gate);
    assert_eq!(app.wait(&running).await["status"], "succeeded");
    app.finish().await;
}

#[tokio::test]
async fn a_deadline_is_a_whole_number_of_seconds_up_to_a_day_or_nothing() {
    let app = spawn_app().await;
    for (bad, got) in [(json!(0), "0"), (json!(86_401), "86401"), (json!(1.5), "1.5"), (json!("60"), "\"60\"")] {
        let problem = json_of(app.post(&request(json!({"deadline_seconds": bad}))).await, 422).await;
        let detail = format!("must be a whole number from 1 to 86400, got {got}");
        assert_eq!(problem["errors"], json!([{"pointer": "/deadline_seconds", "detail": detail}]));
    }
    let painted = app.paint(&request(json!({"deadline_seconds": null}))).await;
    assert!(painted["request"].get("deadline_seconds").is_none());
    app.finish().await;
}
