//! `DELETE /v1/jobs/{id}`, and jobs that are too old.

use std::{fs, path::PathBuf, time::Duration};

use easel::config::Config;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{PATIENCE, TestApp, house_url, json_of, request, spawn_app};

async fn remove(app: &TestApp, job: &Value) -> reqwest::Response {
    app.request("DELETE", job["urls"]["self"].as_str().unwrap()).send().await.unwrap()
}

fn pictures_of(app: &TestApp, job: &Value) -> PathBuf {
    app.folder.path().join("pictures/pictures").join(job["id"].as_str().unwrap())
}

async fn is_gone(app: &TestApp, path: &str) {
    assert_eq!(json_of(app.get(path).await, 410).await["code"], "gone", "{path}");
}

/// Waits until something is so.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, asked).await.expect("it never was so");
}

#[tokio::test]
async fn a_deleted_job_is_gone_with_its_pictures() {
    let app = spawn_app().await;
    let (job, other) = (app.paint(&request(json!({"num_images": 2}))).await, app.paint(&request(json!({}))).await);
    assert!(pictures_of(&app, &job).join("1.png").is_file());
    let answer = remove(&app, &job).await;
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (204, String::new()));
    assert!(!pictures_of(&app, &job).exists());
    for path in ["self", "events"].map(|name| job["urls"][name].as_str().unwrap()) {
        is_gone(&app, path).await;
    }
    is_gone(&app, job["images"][0]["url"].as_str().unwrap()).await;
    for path in ["", "/cancel", "/retry"].map(|tail| format!("{}{tail}", job["urls"]["self"].as_str().unwrap())) {
        let method = if path.ends_with("cancel") || path.ends_with("retry") { "POST" } else { "DELETE" };
        assert_eq!(json_of(app.request(method, &path).send().await.unwrap(), 410).await["code"], "gone", "{path}");
    }
    let listed = json_of(app.get("/v1/jobs").await, 200).await;
    assert_eq!(listed["jobs"], json!([other]));
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn a_deleted_job_that_waits_is_cancelled() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let running = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let waiting = app.submit(&request(json!({}))).await;
    let events = app.watch(&waiting).await;
    assert_eq!(remove(&app, &waiting).await.status(), 204);
    assert_eq!(events.last().await.name, "cancelled");
    is_gone(&app, waiting["urls"]["self"].as_str().unwrap()).await;
    drop(gate);
    assert_eq!(app.wait(&running).await["status"], "succeeded");
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn a_deleted_job_that_runs_stops_at_its_next_step_and_leaves_nothing() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({"num_inference_steps": 5}))).await;
    gate.arrival().await;
    let events = app.watch(&job).await;
    assert_eq!(remove(&app, &job).await.status(), 204);
    is_gone(&app, job["urls"]["self"].as_str().unwrap()).await;
    assert_eq!(json_of(app.get("/v1/jobs").await, 200).await["jobs"], json!([]));
    gate.pass();
    assert_eq!(events.last().await.name, "cancelled");
    assert_eq!((gate.counts.steps(), gate.counts.finishes()), (1, 0));
    is_gone(&app, job["urls"]["self"].as_str().unwrap()).await;
    assert!(!pictures_of(&app, &job).exists());
    drop(gate);
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn a_job_that_nobody_knows_cannot_be_deleted() {
    let app = spawn_app().await;
    let nobody = "/v1/jobs/00000000-0000-4000-8000-000000000000";
    let problem = json_of(app.request("DELETE", nobody).send().await.unwrap(), 404).await;
    assert_eq!(problem["code"], "unknown_job");
    app.finish().await;
}

fn impatient(config: &mut Config) {
    (config.retention.check_seconds, config.retention.sweep_seconds) = (1, 1);
}

#[tokio::test]
async fn results_that_are_too_old_are_removed_and_answer_410() {
    let old = |config: &mut Config| {
        impatient(config);
        config.retention.result_seconds = 1;
    };
    let app = TestApp::with(old).await;
    let job = app.paint(&request(json!({}))).await;
    until(async || app.get(job["urls"]["self"].as_str().unwrap()).await.status() == 410).await;
    until(async || !pictures_of(&app, &job).exists()).await;
    until(async || app.metric("easel_jobs_expired_total").await == 1.0).await;
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn a_removal_is_forgotten_in_the_end() {
    let forgetful = |config: &mut Config| {
        impatient(config);
        config.retention.removed_seconds = 0;
    };
    let app = TestApp::with(forgetful).await;
    let job = app.paint(&request(json!({}))).await;
    assert_eq!(remove(&app, &job).await.status(), 204);
    until(async || app.get(job["urls"]["self"].as_str().unwrap()).await.status() == 404).await;
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn files_that_no_job_owns_are_swept_and_all_others_stay() {
    let app = TestApp::with(impatient).await;
    let job = app.paint(&request(json!({"image": house_url(), "num_inference_steps": 2}))).await;
    let root = app.folder.path().join("pictures");
    let sha256 = job["request"]["image"]["sha256"].as_str().unwrap();
    let files = [
        ("pictures/00000000-0000-4000-8000-000000000000/0.png".to_owned(), false),
        (format!("inputs/{}", "ab".repeat(32)), false),
        (format!("inputs/{}#3", "ab".repeat(32)), false),
        (format!("pictures/{}/0.png#1", job["id"].as_str().unwrap()), false),
        (format!("pictures/{}/0.png", job["id"].as_str().unwrap()), true),
        (format!("inputs/{sha256}"), true),
        ("pictures/notes/of mine.txt".to_owned(), true),
    ];
    let yesterday = std::time::SystemTime::now() - Duration::from_secs(86_400);
    for (path, _) in &files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::options().create(true).append(true).open(&path).unwrap().set_modified(yesterday).unwrap();
    }
    // One that has just been written may belong to a job that is about to be stored.
    fs::write(root.join(format!("inputs/{}", "cd".repeat(32))), "new").unwrap();
    let is_swept = |path: &str| !root.join(path).exists();
    until(async || files.iter().filter(|(_, stays)| !stays).all(|(path, _)| is_swept(path))).await;
    // A whole sweep more, after which what is still there stays.
    let swept = root.join("pictures/00000000-0000-4000-8000-000000000001/0.png");
    fs::create_dir_all(swept.parent().unwrap()).unwrap();
    fs::write(&swept, "once more").unwrap();
    until(async || !swept.exists()).await;
    assert!(files.iter().filter(|(_, stays)| *stays).all(|(path, _)| !is_swept(path)));
    assert!(!is_swept(&format!("inputs/{}", "cd".repeat(32))));
    assert_eq!(app.picture(&job, 0).await.len() as u64, job["images"][0]["bytes"].as_u64().unwrap());
    app.finish().await;
}
