//! `POST /v1/jobs/{id}/retry`

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{PANICS_AT, TestApp, house_url, json_of, request, spawn_app};

async fn retry(app: &TestApp, job: &Value) -> Response {
    app.send(app.request("POST", &format!("{}/retry", job["urls"]["self"].as_str().unwrap()))).await
}

#[tokio::test]
async fn a_cancelled_job_is_painted_by_its_retry_as_it_would_have_been() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let body = request(json!({"image": house_url(), "num_inference_steps": 4}));
    let job = app.submit(&body).await;
    gate.arrival().await;
    app.cancel(&job).await;
    drop(gate);
    let cancelled = app.wait(&job).await;
    let again = json_of(retry(&app, &job).await, 202).await;
    assert_eq!((&again["retry_of"], &again["request"]), (&job["id"], &job["request"]));
    assert_ne!(again["id"], job["id"]);
    let again = app.wait(&again).await;
    assert_eq!(again["status"], "succeeded");
    let mut same = body.clone();
    same["seed"] = job["request"]["seed"].clone();
    assert_eq!(app.picture(&again, 0).await, app.picture(&app.paint(&same).await, 0).await);
    assert_eq!(app.job(&job).await, cancelled, "the old job stays as it ended");
    app.finish().await;
}

#[tokio::test]
async fn a_failed_job_can_be_retried() {
    let (app, gate) = TestApp::gated(|_| {}).await;
    drop(gate);
    let failed = app.end_of(&request(json!({"prompt": PANICS_AT}))).await;
    assert_eq!(failed["status"], "failed");
    let again = json_of(retry(&app, &failed).await, 202).await;
    assert_eq!(app.wait(&again).await["status"], "failed", "it fails for the same reason again");
    app.finish().await;
}

#[tokio::test]
async fn a_job_that_has_not_failed_cannot_be_retried() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let problem = json_of(retry(&app, &job).await, 409).await;
    let detail = "the job is running; only one that has failed or was cancelled can be retried";
    assert_eq!((&problem["code"], &problem["detail"]), (&json!("not_retryable"), &json!(detail)));
    drop(gate);
    app.wait(&job).await;
    assert_eq!(json_of(retry(&app, &job).await, 409).await["code"], "not_retryable");
    app.finish().await;
}

#[tokio::test]
async fn a_retry_with_an_idempotency_key_is_one_retry() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let running = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let job = app.submit(&request(json!({}))).await;
    app.cancel(&job).await;
    let path = format!("{}/retry", job["urls"]["self"].as_str().unwrap());
    let keyed = || app.send(app.request("POST", &path).header("idempotency-key", "again"));
    let (first, second) = (json_of(keyed().await, 202).await, json_of(keyed().await, 202).await);
    assert_eq!(first["id"], second["id"]);
    drop(gate);
    for job in [&running, &first] {
        app.wait(job).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_job_that_nobody_knows_cannot_be_retried() {
    let app = spawn_app().await;
    let answer = app.request("POST", "/v1/jobs/00000000-0000-4000-8000-000000000000/retry").send().await.unwrap();
    assert_eq!(json_of(answer, 404).await["code"], "unknown_job");
    app.finish().await;
}
