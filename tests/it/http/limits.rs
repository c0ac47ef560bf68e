//! What one key may ask for, and that it takes nothing from the others.

use easel::config::{Config, KeyConfig};
use futures::future::join_all;
use serde_json::json;

use super::auth::{key_config, key_of};
use crate::support::{TestApp, json_of, request};

/// Keys for alice and bob, and something more about alice's.
fn with_alice(alice: impl FnOnce(KeyConfig) -> KeyConfig) -> impl FnOnce(&mut Config) {
    |config| config.auth.keys = vec![alice(key_config("alice")), key_config("bob")]
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let app = TestApp::with(with_alice(|key| KeyConfig { requests_per_second: Some(1), ..key })).await;
    let (alice, bob) = (app.with_key(&key_of("alice")), app.with_key(&key_of("bob")));
    // Twenty at once would have to take twenty seconds for all of them to be let in.
    let answers = join_all((0..20).map(|_| alice.get("/v1/models"))).await;
    let (admitted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 200);
    assert!(!admitted.is_empty() && !refused.is_empty(), "{} of 20 were let in", admitted.len());
    for answer in refused {
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(json_of(answer, 429).await["code"], "rate_limited");
    }
    for answer in join_all((0..20).map(|_| bob.get("/v1/models"))).await {
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(app.get("/healthz").await.status(), 200);
    app.finish().await;
}

#[tokio::test]
async fn clients_without_a_key_share_one_limit() {
    let app = TestApp::with(|config| config.auth.requests_per_second = 1).await;
    let answers = join_all((0..20).map(|_| app.get("/v1/models"))).await;
    assert!(answers.iter().any(|answer| answer.status() == 429));
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn a_key_whose_jobs_fill_its_share_of_the_queue_leaves_room_for_others() {
    let limits = |config: &mut Config| {
        config.dispatch.max_canvases = 1;
        config.auth.max_queued_jobs = 1;
        config.auth.keys = vec![key_config("alice"), KeyConfig { max_queued_jobs: Some(0), ..key_config("bob") }];
    };
    let (app, mut gate) = TestApp::gated(limits).await;
    let (alice, bob) = (app.with_key(&key_of("alice")), app.with_key(&key_of("bob")));
    let mut jobs = vec![bob.submit(&request(json!({}))).await];
    gate.arrival().await;
    let waits = alice.submit(&request(json!({}))).await;
    let refused = alice.post(&request(json!({}))).await;
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds >= 1);
    assert_eq!(json_of(refused, 429).await["code"], "key_queue_full");
    for seed in 0..3 {
        jobs.push(bob.submit(&request(json!({"seed": seed}))).await);
    }
    drop(gate);
    assert_eq!(alice.wait(&waits).await["status"], "succeeded");
    for job in jobs {
        assert_eq!(bob.wait(&job).await["status"], "succeeded");
    }
    alice.paint(&request(json!({}))).await;
    app.finish().await;
}

#[tokio::test]
async fn a_key_that_may_run_one_job_runs_one_while_others_overtake_it() {
    let limits = with_alice(|key| KeyConfig { max_running_jobs: Some(1), ..key });
    let (app, mut gate) = TestApp::gated(limits).await;
    let (alice, bob) = (app.with_key(&key_of("alice")), app.with_key(&key_of("bob")));
    let first = alice.submit(&request(json!({"num_inference_steps": 100}))).await;
    assert_eq!(gate.arrival().await, 1);
    let second = alice.submit(&request(json!({}))).await;
    let other = bob.submit(&request(json!({"num_inference_steps": 100}))).await;
    bob.until_running(&other).await;
    gate.pass();
    while gate.arrival().await < 2 {
        gate.pass();
    }
    assert_eq!(alice.job(&first).await["status"], "running");
    assert_eq!(alice.job(&second).await["status"], "queued");
    assert_eq!(bob.job(&other).await["status"], "running");
    drop(gate);
    let (first, second) = (alice.wait(&first).await, alice.wait(&second).await);
    let time = |job: &serde_json::Value, what: &str| job[what].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&second, "started_at") >= time(&first, "finished_at"), "{first} {second}");
    bob.wait(&other).await;
    app.finish().await;
}
