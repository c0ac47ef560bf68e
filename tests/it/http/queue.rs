//! The queue as a whole: its order, its pause.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{TestApp, json_of, request, spawn_app};

fn started(job: &Value) -> Timestamp {
    job["started_at"].as_str().unwrap().parse().unwrap()
}

async fn turn(app: &TestApp, verb: &str) -> Value {
    json_of(app.request("POST", &format!("/v1/queue/{verb}")).send().await.unwrap(), 200).await
}

#[tokio::test]
async fn urgent_jobs_go_first_and_equals_in_the_order_of_their_posts() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let first = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let mut jobs = Vec::new();
    for (priority, position) in [(5, 1), (0, 2), (9, 1), (5, 3), (9, 2)] {
        let job = app.submit(&request(json!({"priority": priority}))).await;
        assert_eq!((&job["request"]["priority"], &job["queue_position"]), (&json!(priority), &json!(position)));
        jobs.push(job);
    }
    drop(gate);
    app.wait(&first).await;
    let mut starts = Vec::new();
    for place in [2, 4, 0, 3, 1] {
        starts.push(started(&app.wait(&jobs[place]).await));
    }
    assert!(starts.is_sorted(), "{starts:?}");
    app.finish().await;
}

#[tokio::test]
async fn those_who_are_overtaken_are_told_their_new_place() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let running = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let waiting = app.submit(&request(json!({}))).await;
    let mut events = app.watch(&waiting).await;
    assert_eq!(events.next().await.unwrap().name, "snapshot");
    let urgent = app.submit(&request(json!({"priority": 9}))).await;
    let moved = events.next().await.unwrap();
    assert_eq!((moved.name.as_str(), &moved.data["queue_position"]), ("queued", &json!(2)));
    drop(gate);
    for job in [&running, &urgent, &waiting] {
        app.wait(job).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_paused_queue_accepts_jobs_and_begins_none_until_it_goes_on() {
    let app = spawn_app().await;
    app.paint(&request(json!({}))).await;
    assert_eq!(turn(&app, "pause").await, json!({"queued": 0, "running": 0, "paused": true}));
    let job = app.submit(&request(json!({}))).await;
    assert_eq!(json_of(app.get("/v1/queue").await, 200).await, json!({"queued": 1, "running": 0, "paused": true}));
    assert_eq!((app.metric("easel_queue_paused").await, app.metric("easel_queue_depth").await), (1.0, 1.0));
    assert_eq!(app.get("/readyz").await.status(), 200, "a paused server is ready: it accepts jobs");
    assert_eq!(turn(&app, "resume").await["paused"], false);
    assert_eq!(app.wait(&job).await["status"], "succeeded");
    app.finish().await;
}

#[tokio::test]
async fn while_the_queue_is_paused_only_of_running_jobs_it_is_told_when_they_will_be_done() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let running = app.submit(&request(json!({"num_inference_steps": 20}))).await;
    for _ in 0..3 {
        gate.arrival().await;
        gate.pass();
    }
    gate.arrival().await;
    let waiting = app.submit(&request(json!({}))).await;
    assert!(waiting["eta_seconds"].is_f64(), "{waiting}");
    turn(&app, "pause").await;
    assert!(app.job(&waiting).await["eta_seconds"].is_null());
    assert!(app.job(&running).await["eta_seconds"].is_f64());
    let newcomer = app.submit(&request(json!({}))).await;
    assert!(newcomer["eta_seconds"].is_null());
    turn(&app, "resume").await;
    drop(gate);
    for job in [&running, &waiting, &newcomer] {
        assert_eq!(app.wait(job).await["status"], "succeeded");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_pause_lets_running_jobs_go_on() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let running = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    turn(&app, "pause").await;
    drop(gate);
    assert_eq!(app.wait(&running).await["status"], "succeeded");
    app.finish().await;
}

#[tokio::test]
async fn a_pause_survives_a_restart() {
    let app = spawn_app().await;
    turn(&app, "pause").await;
    let job = app.submit(&request(json!({}))).await;
    let (folder, stopped) = app.stop().await;
    stopped.unwrap();
    let app = TestApp::over(&folder).await;
    assert_eq!(json_of(app.get("/v1/queue").await, 200).await["paused"], true);
    turn(&app, "resume").await;
    assert_eq!(app.wait(&job).await["status"], "succeeded");
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn a_priority_out_of_range_is_refused() {
    let app = spawn_app().await;
    let problem = json_of(app.post(&request(json!({"priority": 10}))).await, 422).await;
    assert_eq!(problem["errors"], json!([{"pointer": "/priority", "detail": "must be a whole number from 0 to 9, got 10"}]));
    app.finish().await;
}
