//! One job from its client's side.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::Value;

use crate::{
    classes::{Job, Mix},
    server::{Server, free_port},
    work::wait_for_end,
};

/// What became of a job.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) class: &'static str,
    /// From the moment at which the client wanted it.
    pub(crate) latency: Duration,
    pub(crate) succeeded: bool,
}

/// Sends a job and waits for its end.
pub(crate) async fn paint(http: &Client, url: &str, job: &Job, wanted_at: Instant) -> Outcome {
    let post = http.post(format!("{url}/v1/generate")).header("Prefer", "wait=60").json(&job.body);
    let answer = post.send().await.unwrap();
    let accepted = answer.status().is_success();
    let mut body: Value = answer.json().await.unwrap();
    if accepted && !matches!(body["status"].as_str(), Some("succeeded" | "failed" | "cancelled")) {
        body = wait_for_end(http, &format!("{url}{}", body["urls"]["self"].as_str().unwrap())).await;
    }
    Outcome { class: job.class, latency: wanted_at.elapsed(), succeeded: body["status"] == "succeeded" }
}

/// Sends a job and watches it to its end, as who wants previews must; answers the seconds and the previews.
pub(crate) async fn watch(http: &Client, url: &str, body: &Value) -> (f64, usize) {
    let start = Instant::now();
    let job: Value = http.post(format!("{url}/v1/generate")).json(body).send().await.unwrap().json().await.unwrap();
    let events = format!("{url}{}", job["urls"]["events"].as_str().unwrap());
    // The stream ends with the job.
    let events = http.get(events).send().await.unwrap().text().await.unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let of_kind = |kind: &str| events.lines().filter(|line| line.strip_prefix("event: ") == Some(kind)).count();
    assert_eq!(of_kind("succeeded"), 1, "{events}");
    (seconds, of_kind("preview"))
}

/// Seconds that a job of each class takes when it is alone: the better of two, after one that does not count.
pub(crate) async fn lone(settings: &[(&str, &str)], mix: &Mix) -> BTreeMap<&'static str, f64> {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), free_port(), settings).await;
    let http = Client::new();
    let mut lone = BTreeMap::new();
    for class in mix.classes {
        let mut best = f64::INFINITY;
        for turn in 0..3 {
            let outcome = paint(&http, &server.url, &class.job(turn), Instant::now()).await;
            assert!(outcome.succeeded, "{outcome:?}");
            best = best.min(if turn == 0 { f64::INFINITY } else { outcome.latency.as_secs_f64() });
        }
        println!("alone, {}: {best:.2} s", class.name);
        lone.insert(class.name, best);
    }
    lone
}
