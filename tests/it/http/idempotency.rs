//! The `Idempotency-Key` header.

use easel::config::Config;
use futures::future::join_all;
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{TestApp, house_url, json_of, request, spawn_app};

async fn post(app: &TestApp, key: &str, body: &Value) -> Response {
    app.send(app.request("POST", "/v1/generate").header("idempotency-key", key).json(body)).await
}

#[tokio::test]
async fn the_same_key_and_body_bring_the_same_job() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    // Without a seed, so that a second job would be another picture.
    let mut body = request(json!({"image": house_url()}));
    body.as_object_mut().unwrap().remove("seed");
    let first = post(&app, "order-17", &body).await;
    assert!(!first.headers().contains_key("idempotent-replayed"));
    let first = json_of(first, 202).await;
    gate.arrival().await;
    let again = post(&app, "\"order-17\"", &body).await;
    assert_eq!(
        (&again.headers()["idempotent-replayed"], again.headers().get("location").is_some()),
        (&"true".parse().unwrap(), true)
    );
    let again = json_of(again, 202).await;
    assert_eq!((&again["id"], &again["status"], &again["request"]), (&first["id"], &json!("running"), &first["request"]));
    drop(gate);
    let ended = app.wait(&first).await;
    assert_eq!(json_of(post(&app, "order-17", &body).await, 200).await, ended, "a job that is over is answered as it is");
    assert_eq!(app.metric("easel_jobs_accepted_total").await, 1.0);
    app.finish().await;
}

#[tokio::test]
async fn twenty_posts_at_once_with_one_key_bring_one_job() {
    let app = spawn_app().await;
    let body = request(json!({}));
    let answers = join_all((0..20).map(|_| post(&app, "one", &body))).await;
    let mut ids = Vec::new();
    for answer in answers {
        assert!(answer.status().is_success());
        ids.push(answer.json::<Value>().await.unwrap()["id"].clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(app.metric("easel_jobs_accepted_total").await, 1.0);
    app.wait(&json_of(app.get(&format!("/v1/jobs/{}", ids[0].as_str().unwrap())).await, 200).await).await;
    app.finish().await;
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let app = spawn_app().await;
    let job = json_of(post(&app, "order-17", &request(json!({"seed": 1}))).await, 202).await;
    let problem = json_of(post(&app, "order-17", &request(json!({"seed": 2}))).await, 422).await;
    assert_eq!(problem["code"], "idempotency_key_reused");
    app.wait(&job).await;
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_was_refused_does_not_use_up_its_key() {
    let app = spawn_app().await;
    assert_eq!(post(&app, "k", &request(json!({"width": 1}))).await.status(), 422);
    let job = json_of(post(&app, "k", &request(json!({}))).await, 202).await;
    app.wait(&job).await;
    app.finish().await;
}

#[tokio::test]
async fn a_full_queue_still_answers_what_it_has_accepted() {
    let full = |config: &mut Config| (config.dispatch.max_queued_jobs, config.dispatch.max_canvases) = (1, 1);
    let (app, mut gate) = TestApp::gated(full).await;
    let running = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let waiting = json_of(post(&app, "k", &request(json!({}))).await, 202).await;
    assert_eq!(post(&app, "other", &request(json!({}))).await.status(), 429);
    assert_eq!(json_of(post(&app, "k", &request(json!({}))).await, 202).await["id"], waiting["id"]);
    drop(gate);
    for job in [&running, &waiting] {
        app.wait(job).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_key_survives_a_restart_and_answers_410_once_its_job_is_removed() {
    let app = spawn_app().await;
    let body = request(json!({}));
    let job = json_of(post(&app, "k", &body).await, 202).await;
    app.wait(&job).await;
    let (folder, stopped) = app.stop().await;
    stopped.unwrap();
    let app = TestApp::over(&folder).await;
    assert_eq!(json_of(post(&app, "k", &body).await, 200).await["id"], job["id"]);
    app.request("DELETE", job["urls"]["self"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(json_of(post(&app, "k", &body).await, 410).await["code"], "gone");
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn a_key_that_is_no_key_is_refused() {
    let app = spawn_app().await;
    for bad in ["", "\"\"", "two words", &"k".repeat(256)] {
        let problem = json_of(post(&app, bad, &request(json!({}))).await, 422).await;
        assert_eq!(
            (&problem["code"], &problem["errors"][0]["parameter"]),
            (&json!("invalid_parameters"), &json!("Idempotency-Key"))
        );
    }
    app.finish().await;
}
