//! Several models in one server that does not hold them all.

use std::{collections::BTreeMap, path::Path};

use easel::{
    config::{Config, LoadTime, ModelConfig},
    domain::decode_rgb,
};
use serde_json::{Value, json};

use crate::support::{TestApp, copy_folder, cut_short, json_of, request, sha256s};

/// One demo model in float32 takes 67 MiB.
const ROOM_FOR_ONE: u64 = 100;

/// Serves the demo model under these names.
fn serve(config: &mut Config, names: &[&str]) {
    let demo = config.models[0].clone();
    config.models = names.iter().map(|name| ModelConfig { name: (*name).to_owned(), ..demo.clone() }).collect();
}

fn job_of(model: &str, seed: usize) -> Value {
    request(json!({"model": model, "seed": seed}))
}

/// Serves small models of tests/golden under these names, each loaded by its first job.
fn serve_tiny(config: &mut Config, models: &[(&str, &str)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let demo = config.models[0].clone();
    let tiny = |&(name, path): &(&str, &str)| ModelConfig {
        name: name.to_owned(),
        path: folder.join(path),
        load: LoadTime::FirstUse,
        guidance_scale: None,
        ..demo.clone()
    };
    config.models = models.iter().map(tiny).collect();
}

/// Every model's entry of `/v1/models`, by name.
async fn entries(app: &TestApp) -> BTreeMap<String, Value> {
    let answer = json_of(app.get("/v1/models").await, 200).await;
    let entries = answer["models"].as_array().unwrap().clone();
    entries.into_iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry)).collect()
}

async fn states(app: &TestApp) -> BTreeMap<String, String> {
    entries(app).await.into_iter().map(|(name, entry)| (name, entry["state"].as_str().unwrap().to_owned())).collect()
}

fn are<const N: usize>(states: [(&str, &str); N]) -> BTreeMap<String, String> {
    states.map(|(name, state)| (name.to_owned(), state.to_owned())).into()
}

/// A metric's sum over its labels.
async fn total(app: &TestApp, name: &str) -> u64 {
    let text = app.get("/metrics").await.text().await.unwrap();
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

#[tokio::test]
async fn two_models_under_a_mixed_load_share_few_loads_and_never_more_memory_than_they_may() {
    let (app, go) = TestApp::loading(|config| {
        serve(config, &["one", "two"]);
        config.device.model_memory_mib = ROOM_FOR_ONE;
    })
    .await;
    assert_eq!(states(&app).await, are([("one", "loading"), ("two", "loading")]), "the server starts");
    let mut jobs = Vec::new();
    for number in 0..16 {
        jobs.push(app.submit(&job_of(["one", "two"][number % 2], number)).await);
    }
    go.send(()).unwrap();
    let mut most = 0;
    while total(&app, "easel_jobs_total").await < 16 {
        most = total(&app, "easel_model_resident_bytes").await.max(most);
    }
    assert!(most > 0 && most <= ROOM_FOR_ONE << 20, "{most} bytes");
    assert_eq!(app.metric("easel_model_switches_total").await, 1.0, "sixteen jobs in turns, one change");
    assert_eq!(app.metric("easel_model_evictions_total{model=\"one\"}").await, 1.0);
    for name in ["one", "two"] {
        assert_eq!(app.metric(&format!("easel_model_loads_total{{model=\"{name}\"}}")).await, 1.0);
        assert_eq!(app.metric(&format!("easel_model_load_seconds_count{{model=\"{name}\"}}")).await, 1.0);
    }
    assert_eq!(states(&app).await, are([("one", "not_loaded"), ("two", "loaded")]));
    app.finish().await;
}

#[tokio::test]
async fn a_model_that_has_left_comes_back_and_paints_the_same_bytes() {
    let app = TestApp::with(|config| {
        serve(config, &["one", "two"]);
        config.device.model_memory_mib = ROOM_FOR_ONE;
    })
    .await;
    let before = sha256s(&app.paint(&job_of("one", 3)).await);
    assert_eq!(sha256s(&app.paint(&job_of("two", 4)).await).len(), 1);
    assert_eq!(states(&app).await, are([("one", "not_loaded"), ("two", "loaded")]));
    assert_eq!(sha256s(&app.paint(&job_of("one", 3)).await), before);
    assert_eq!(app.metric("easel_model_loads_total{model=\"one\"}").await, 2.0);
    assert_eq!(app.metric("easel_model_switches_total").await, 2.0);
    app.finish().await;
}

#[tokio::test]
async fn a_model_for_later_is_loaded_by_its_first_job() {
    let app = TestApp::with(|config| {
        serve(config, &["one", "two"]);
        config.models[1].load = LoadTime::FirstUse;
    })
    .await;
    app.paint(&job_of("one", 1)).await;
    let before = entries(&app).await;
    assert_eq!((&before["one"]["state"], &before["two"]["state"]), (&json!("loaded"), &json!("not_loaded")));
    assert!(before["one"]["last_used_at"].is_string() && before["two"]["last_used_at"].is_null());
    assert_eq!(before["one"]["weights_bytes"], before["two"]["weights_bytes"], "known from the files");
    app.paint(&job_of("two", 1)).await;
    assert_eq!(states(&app).await, are([("one", "loaded"), ("two", "loaded")]));
    app.finish().await;
}

#[tokio::test]
async fn a_job_that_waits_for_room_is_not_overtaken_by_younger_ones_of_models_that_fit() {
    // One takes 0.9 MiB, the others 0.4 MiB each.
    let (app, mut gate) = TestApp::gated(|config| {
        serve_tiny(config, &[("large", "tiny-sd1"), ("one", "tiny-lcm"), ("two", "tiny-lcm")]);
        config.device.model_memory_mib = 1;
        config.dispatch.model_stay_seconds = 0;
    })
    .await;
    let first = app.submit(&request(json!({"model": "one", "num_inference_steps": 40}))).await;
    gate.arrival().await;
    // The device takes them in this order when its step is done.
    let large = app.submit(&request(json!({"model": "large", "scheduler": "ddim"}))).await;
    app.until_running(&large).await;
    let young = app.submit(&job_of("two", 1)).await;
    app.until_running(&young).await;
    // The first job's forty steps and the two of the large one; then the young one's first waits at the gate.
    for _ in 0..42 {
        gate.pass();
        assert_eq!(gate.arrival().await, 1);
    }
    assert_eq!(app.wait(&large).await["status"], "succeeded");
    assert_eq!(app.job(&young).await["status"], "running");
    drop(gate);
    for job in [first, young] {
        assert_eq!(app.wait(&job).await["status"], "succeeded");
    }
    assert_eq!(app.metric("easel_model_loads_total{model=\"two\"}").await, 1.0, "not while it could not have begun");
    app.finish().await;
}

/// A server of a whole model and of one whose UNet's file is cut short.
async fn with_a_broken_model(folder: &Path, retry_seconds: u64) -> TestApp {
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"), folder);
    cut_short(&folder.join("unet/diffusion_pytorch_model.safetensors"));
    let path = folder.to_owned();
    TestApp::with(|config| {
        serve(config, &["broken", "whole"]);
        config.models[0].path = path;
        config.device.model_retry_seconds = retry_seconds;
    })
    .await
}

#[tokio::test]
async fn a_model_whose_file_is_cut_short_fails_its_jobs_with_the_reason_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_a_broken_model(folder.path(), 600).await;
    let failed = app.end_of(&job_of("broken", 1)).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("model_unavailable")));
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("the model \"broken\" cannot be loaded: unet"), "{message}");
    assert!(!message.contains(folder.path().to_str().unwrap()), "where the files lie is nobody's business: {message}");
    app.paint(&job_of("whole", 1)).await;
    let entry = &entries(&app).await["broken"];
    assert_eq!((&entry["state"], entry["error"].as_str()), (&json!("failed"), Some(message)));
    assert_eq!(
        app.metric("easel_model_load_failures_total{model=\"broken\"}").await,
        1.0,
        "the second job did not try again so soon"
    );
    assert_eq!(app.get("/readyz").await.status(), 200);
    app.finish().await;
}

#[tokio::test]
async fn a_model_whose_files_were_mended_is_loaded_by_a_later_job() {
    let folder = tempfile::tempdir().unwrap();
    let app = with_a_broken_model(folder.path(), 0).await;
    assert_eq!(app.end_of(&job_of("broken", 1)).await["error"]["code"], "model_unavailable");
    let file = "unet/diffusion_pytorch_model.safetensors";
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    std::fs::copy(demo.join(file), folder.path().join(file)).unwrap();
    let mut pictures = Vec::new();
    for model in ["broken", "whole"] {
        let file = app.picture(&app.paint(&job_of(model, 1)).await, 0).await;
        pictures.push(decode_rgb(&file).unwrap());
    }
    assert_eq!(pictures[0], pictures[1], "the same weights, but for the name");
    app.finish().await;
}

#[tokio::test]
async fn a_server_none_of_whose_models_can_be_loaded_does_not_become_ready_and_says_why() {
    let app = TestApp::with(|config| config.device.model_memory_mib = 10).await;
    let (_, stopped) = app.stop_when_lost().await;
    let problem = stopped.unwrap_err().to_string();
    assert!(problem.contains("device.model_memory_mib is 10"), "{problem}");
}
