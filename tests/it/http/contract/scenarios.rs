//! What brings each documented answer about. A new operation or status needs a call here and nothing else.

use std::fs;

use easel::config::KeyConfig;
use serde_json::{Value, json};

use super::witness::Witness;
use crate::{
    http::auth::{key_config, key_of},
    support::{TestApp, house_url, json_of, request, spawn_app},
};

fn url(job: &Value, name: &str) -> String {
    job["urls"][name].as_str().unwrap().to_owned()
}

fn image_url(job: &Value) -> String {
    job["images"][0]["url"].as_str().unwrap().to_owned()
}

/// What needs no job.
pub(super) async fn questions(witness: &Witness) {
    let app = spawn_app().await;
    for path in ["/v1/models", "/v1/schedulers", "/healthz", "/metrics", "/openapi.yaml", "/docs"] {
        witness.call(&app, "GET", path, 200).await;
    }
    for file in ["swagger-initializer.js", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "swagger-ui.css"] {
        witness.call(&app, "GET", &format!("/docs/{file}"), 200).await;
    }
    witness.call(&app, "GET", "/docs/index.html", 404).await;
    app.finish().await;
}

/// A job from its acceptance to its picture, and what is too late then.
pub(super) async fn a_painted_job(witness: &Witness) {
    let app = spawn_app().await;
    let post = app.request("POST", "/v1/generate").header("prefer", "wait=60").json(&request(json!({"preview_every": 1})));
    let job = witness.send(&app, post, 200).await.body;
    witness.call(&app, "GET", "/readyz", 200).await;
    witness.call(&app, "GET", &url(&job, "self"), 200).await;
    let picture = witness.call(&app, "GET", &image_url(&job), 200).await;
    let known = app.request("GET", &image_url(&job)).header("if-none-match", &picture.headers["etag"]);
    witness.send(&app, known, 304).await;
    other_files_of(witness, &app, &job).await;
    witness.call(&app, "POST", &url(&job, "cancel"), 409).await;
    let events = witness.call(&app, "GET", &url(&job, "events"), 200).await.events;
    let last = app.request("GET", &url(&job, "events")).header("last-event-id", events.last().unwrap().id);
    witness.send(&app, last, 204).await;
    app.finish().await;
}

/// A picture's other formats and parts, and what there is not of it.
async fn other_files_of(witness: &Witness, app: &TestApp, job: &Value) {
    let ask = |header: &str, value: &str| app.request("GET", &image_url(job)).header(header, value);
    for format in ["image/jpeg", "image/webp"] {
        let other = witness.send(app, ask("accept", format), 200).await;
        assert_eq!(other.headers["content-type"], format);
    }
    witness.send(app, ask("accept", "text/html"), 406).await;
    witness.send(app, ask("range", "bytes=0-7"), 206).await;
    witness.send(app, ask("range", "bytes=100000000-"), 416).await;
    witness.call(app, "GET", &format!("{}?width=32", image_url(job)), 200).await;
    witness.call(app, "GET", &format!("{}?width=8", image_url(job)), 422).await;
    witness.call(app, "GET", &format!("{}/images/7", url(job, "self")), 404).await;
}

/// Every picture that a request may bring, and what is told of it.
pub(super) async fn pictures_that_come_in(witness: &Witness) {
    let app = spawn_app().await;
    let house = house_url();
    let body = request(json!({"image": house, "mask_image": house, "mask_blur": 2}));
    let job = witness.post(&app, &body, 202).await;
    app.wait(&job).await;
    witness.call(&app, "GET", &url(&job, "self"), 200).await;
    witness.post(&app, &request(json!({"mask_image": house, "image_guidance_scale": 2})), 422).await;
    app.finish().await;
}

/// Jobs that run and wait while others come.
pub(super) async fn a_busy_device(witness: &Witness) {
    let limits = |config: &mut easel::config::Config| (config.dispatch.max_queued_jobs, config.dispatch.max_canvases) = (3, 1);
    let (app, mut gate) = TestApp::gated(limits).await;
    let running = witness.post(&app, &request(json!({})), 202).await;
    gate.arrival().await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(witness.post(&app, &request(json!({"num_inference_steps": 20, "preview_every": 1})), 202).await);
    }
    witness.post(&app, &request(json!({})), 429).await;
    witness.call(&app, "GET", &url(&running, "self"), 200).await;
    witness.call(&app, "POST", &url(&waiting[0], "cancel"), 200).await;
    witness.call(&app, "POST", &url(&running, "cancel"), 202).await;
    let stream = app.get(&url(&waiting[2], "events")).await;
    drop(gate);
    let operation = witness.document.find("GET", &url(&waiting[2], "events"));
    let events = witness.check(operation, stream, 200).await.events;
    for name in ["snapshot", "queued", "started", "progress", "preview", "succeeded"] {
        assert!(events.iter().any(|event| event.name == name), "no event {name}");
    }
    app.wait(&waiting[1]).await;
    app.finish().await;
}

/// Bodies that are refused.
pub(super) async fn bad_bodies(witness: &Witness) {
    let app = TestApp::with(|config| config.server.max_body_bytes = 1024).await;
    let post =
        |content_type: &str, body: String| app.request("POST", "/v1/generate").header("content-type", content_type).body(body);
    witness.send(&app, post("application/json", "{".to_owned()), 400).await;
    witness.send(&app, post("application/json", " ".repeat(1025)), 413).await;
    witness.send(&app, post("text/plain", "a red house".to_owned()), 415).await;
    witness.post(&app, &request(json!({"width": 127, "colour": "red"})), 422).await;
    app.finish().await;
}

/// A body that does not arrive.
pub(super) async fn a_slow_body(witness: &Witness) {
    let app = TestApp::with(|config| config.server.body_timeout_seconds = 1).await;
    let never = reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let post = app.request("POST", "/v1/generate").header("content-type", "application/json").body(never);
    witness.send(&app, post, 408).await;
    app.finish().await;
}

/// A client that watches more than it may.
pub(super) async fn too_many_streams(witness: &Witness) {
    let (app, mut gate) = TestApp::gated(|config| config.server.max_event_streams = 1).await;
    let job = witness.post(&app, &request(json!({})), 202).await;
    gate.arrival().await;
    let open = app.watch(&job).await;
    let refused = witness.call(&app, "GET", &url(&job, "events"), 429).await;
    assert_eq!(refused.body["code"], "too_many_streams");
    drop(gate);
    open.last().await;
    app.finish().await;
}

/// A picture that was damaged on the disk.
pub(super) async fn a_damaged_picture(witness: &Witness) {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let folder = app.folder.path().join("pictures/pictures").join(job["id"].as_str().unwrap());
    for file in fs::read_dir(folder).unwrap() {
        fs::write(file.unwrap().path(), "no picture").unwrap();
    }
    witness.call(&app, "GET", &image_url(&job), 500).await;
    app.finish().await;
}

/// A job that is run again.
pub(super) async fn a_job_again(witness: &Witness) {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let running = witness.post(&app, &request(json!({})), 202).await;
    gate.arrival().await;
    let cancelled = witness.post(&app, &request(json!({})), 202).await;
    witness.call(&app, "POST", &url(&cancelled, "cancel"), 200).await;
    let retry = format!("{}/retry", url(&cancelled, "self"));
    let again = witness.call(&app, "POST", &retry, 202).await.body;
    witness.call(&app, "GET", "/v1/jobs?status=running,cancelled&limit=2", 200).await;
    witness.call(&app, "GET", "/v1/jobs?limit=0", 422).await;
    drop(gate);
    app.wait(&running).await;
    app.wait(&again).await;
    witness.send(&app, app.request("POST", &retry).header("prefer", "wait=60"), 200).await;
    witness.send(&app, app.request("POST", &retry).header("idempotency-key", "two words"), 422).await;
    witness.call(&app, "POST", &format!("{}/retry", url(&again, "self")), 409).await;
    app.finish().await;
}

/// A request that comes again under its key.
pub(super) async fn a_keyed_request(witness: &Witness) {
    let app = spawn_app().await;
    let post = |body: Value| {
        app.request("POST", "/v1/generate").header("idempotency-key", "k").header("prefer", "wait=60").json(&request(body))
    };
    // Sent past the witness, who would expect the job to be there at the end.
    let job = json_of(post(json!({})).send().await.unwrap(), 200).await;
    let operation = witness.document.find("POST", "/v1/generate");
    let replayed = witness.check(operation, post(json!({})).send().await.unwrap(), 200).await;
    assert_eq!((&replayed.body["id"], &replayed.headers["idempotent-replayed"]), (&job["id"], &"true".parse().unwrap()));
    witness.send(&app, post(json!({"seed": 8})), 422).await;
    witness.call(&app, "DELETE", &url(&job, "self"), 204).await;
    witness.send(&app, post(json!({})), 410).await;
    app.finish().await;
}

/// The queue as a whole, for admins and others.
pub(super) async fn the_queue(witness: &Witness) {
    let keys = vec![KeyConfig { admin: true, ..key_config("alice") }, key_config("bob")];
    let app = TestApp::with(|config| config.auth.keys = keys).await;
    let (alice, bob) = (app.with_key(&key_of("alice")), app.with_key(&key_of("bob")));
    witness.call(&bob, "GET", "/v1/queue", 200).await;
    for path in ["/v1/queue/pause", "/v1/queue/resume"] {
        witness.call(&alice, "POST", path, 200).await;
        witness.call(&bob, "POST", path, 403).await;
    }
    app.finish().await;
}
