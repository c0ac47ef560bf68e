//! Jobs that are asked for, cancelled, turned away.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{TestApp, json_of, request, spawn_app};

const NOBODY: &str = "/v1/jobs/00000000-0000-4000-8000-000000000000";

async fn problem_at(app: &TestApp, method: &str, path: &str, status: u16) -> Value {
    let answer = app.request(method, path).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{method} {path}");
    json_of(answer, status).await
}

#[tokio::test]
async fn a_job_that_nobody_has_posted_is_not_found() {
    let app = spawn_app().await;
    let paths = ["", "/events", "/images/0"].map(|rest| ("GET", format!("{NOBODY}{rest}")));
    let cancel = ("POST", format!("{NOBODY}/cancel"));
    let no_id = ("GET", "/v1/jobs/7".to_owned());
    for (method, path) in paths.into_iter().chain([cancel, no_id]) {
        assert_eq!(problem_at(&app, method, &path, 404).await["code"], "unknown_job", "{method} {path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_job_is_found_under_its_own_id_only() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let id = job["id"].as_str().unwrap();
    let (plain, capitals) = (id.replace('-', ""), id.to_uppercase());
    // Letters are needed to tell capitals from the id itself; one id in 10^6 has none.
    for other in [plain, format!("%7B{id}%7D"), format!("urn:uuid:{id}")].into_iter().chain((capitals != id).then_some(capitals)) {
        assert_eq!(problem_at(&app, "GET", &format!("/v1/jobs/{other}"), 404).await["code"], "unknown_job", "{other}");
        assert_eq!(problem_at(&app, "GET", &format!("/v1/jobs/{other}/images/0"), 404).await["code"], "unknown_job", "{other}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_has_a_picture_is_told_so_without_its_file() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let image = &job["images"][0];
    std::fs::remove_dir_all(app.folder.path().join("pictures/pictures")).unwrap();
    let get = |tag: String| app.request("GET", image["url"].as_str().unwrap()).header("if-none-match", tag).send();
    let etag = format!("\"{}\"", image["sha256"].as_str().unwrap());
    for tag in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        let answer = get(tag.clone()).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["etag"].to_str().unwrap()), (304, etag.as_str()), "{tag}");
        assert!(answer.bytes().await.unwrap().is_empty());
    }
    assert_eq!(get("\"other\"".to_owned()).await.unwrap().status(), 500, "a client that has another picture needs the file");
    app.finish().await;
}

#[tokio::test]
async fn a_picture_that_the_job_does_not_have_is_not_found() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let images = format!("{}/images", job["urls"]["self"].as_str().unwrap());
    assert_eq!(problem_at(&app, "GET", &format!("{images}/1"), 404).await["code"], "unknown_picture");
    for index in ["-1", "first", "4294967296", "00", "+0", "%2B0"] {
        assert_eq!(problem_at(&app, "GET", &format!("{images}/{index}"), 404).await["code"], "no_such_route", "{index}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_picture_that_is_not_painted_yet_is_not_found() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let path = format!("{}/images/0", job["urls"]["self"].as_str().unwrap());
    assert_eq!(problem_at(&app, "GET", &path, 404).await["code"], "unknown_picture");
    drop(gate);
    app.wait(&job).await;
    app.finish().await;
}

#[tokio::test]
async fn a_picture_that_was_damaged_on_the_disk_is_never_served() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({"num_images": 2}))).await;
    let folder = app.folder.path().join("pictures/pictures").join(job["id"].as_str().unwrap());
    let [damaged, missing]: [PathBuf; 2] = ["0.png", "1.png"].map(|name| folder.join(name));
    let mut file = std::fs::read(&damaged).unwrap();
    *file.last_mut().unwrap() ^= 1;
    std::fs::write(damaged, file).unwrap();
    std::fs::remove_file(missing).unwrap();
    for index in 0..2 {
        let path = format!("{}/images/{index}", job["urls"]["self"].as_str().unwrap());
        let problem = problem_at(&app, "GET", &path, 500).await;
        assert_eq!((&problem["code"], problem.get("detail")), (&json!("internal"), None));
    }
    app.finish().await;
}

#[tokio::test]
async fn a_queued_job_is_cancelled_at_once_and_never_begins() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let running = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let queued = app.submit(&request(json!({"seed": 8}))).await;
    let job = json_of(app.cancel(&queued).await, 200).await;
    assert_eq!((&job["status"], &job["attempts"], &job["started_at"]), (&json!("cancelled"), &json!(0), &Value::Null));
    assert!(!job["finished_at"].is_null());
    drop(gate);
    assert_eq!(app.wait(&running).await["status"], "succeeded");
    assert_eq!(app.job(&queued).await, job);
    app.finish().await;
}

#[tokio::test]
async fn a_running_job_is_cancelled_at_its_next_step_boundary_before_the_vae() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({"num_inference_steps": 5}))).await;
    gate.arrival().await;
    gate.pass();
    gate.arrival().await;
    let asked = json_of(app.cancel(&job).await, 202).await;
    assert_eq!((&asked["status"], &asked["progress"]["step"]), (&json!("running"), &json!(1)));
    gate.pass();
    let job = app.wait(&job).await;
    assert_eq!((&job["status"], &job["images"], &job["error"]), (&json!("cancelled"), &json!([]), &Value::Null));
    assert_eq!((gate.counts.steps(), gate.counts.finishes()), (2, 0));
    drop(gate);
    app.finish().await;
}

#[tokio::test]
async fn progress_counts_the_users_steps_where_a_step_takes_two_unet_calls() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({"num_inference_steps": 2, "scheduler": "heun"}))).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        gate.arrival().await;
        seen.push(app.job(&job).await["progress"]["step"].clone());
        gate.pass();
    }
    assert_eq!(app.wait(&job).await["status"], "succeeded");
    assert_eq!(seen[1..], [json!(0), json!(1)], "before the second and the third call");
    assert_eq!(gate.counts.steps(), 3, "the last step takes one call");
    drop(gate);
    app.finish().await;
}

#[tokio::test]
async fn a_cancel_between_the_two_calls_of_a_step_stops_the_job() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({"num_inference_steps": 4, "scheduler": "dpm2"}))).await;
    gate.arrival().await;
    gate.pass();
    gate.arrival().await;
    let asked = json_of(app.cancel(&job).await, 202).await;
    assert_eq!(asked["progress"]["step"], 0);
    gate.pass();
    assert_eq!(app.wait(&job).await["status"], "cancelled");
    assert_eq!((gate.counts.steps(), gate.counts.finishes()), (2, 0));
    drop(gate);
    app.finish().await;
}

#[tokio::test]
async fn a_cancel_during_the_last_step_comes_before_the_vae_too() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({"num_inference_steps": 1}))).await;
    gate.arrival().await;
    assert_eq!(app.cancel(&job).await.status(), 202);
    assert_eq!(app.cancel(&job).await.status(), 202, "a second cancel changes nothing");
    gate.pass();
    assert_eq!(app.wait(&job).await["status"], "cancelled");
    assert_eq!(gate.counts.finishes(), 0);
    drop(gate);
    app.finish().await;
}

#[tokio::test]
async fn a_finished_job_can_no_longer_be_cancelled() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let problem = problem_at(&app, "POST", job["urls"]["cancel"].as_str().unwrap(), 409).await;
    assert_eq!((&problem["code"], &problem["detail"]), (&json!("already_finished"), &json!("the job has already succeeded")));
    assert_eq!(app.job(&job).await, job);
    app.finish().await;
}

#[tokio::test]
async fn a_full_queue_turns_jobs_away_and_says_when_to_come_back() {
    let limits = |config: &mut easel::config::Config| (config.dispatch.max_queued_jobs, config.dispatch.max_canvases) = (2, 1);
    let (app, mut gate) = TestApp::gated(limits).await;
    let running = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let waiting = [app.submit(&request(json!({}))).await, app.submit(&request(json!({}))).await];
    let image = request(json!({"image": crate::support::house_url()}));
    for refused in [request(json!({})), image] {
        let answer = app.post(&refused).await;
        assert!(!answer.headers().contains_key("location"));
        let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=3600).contains(&seconds), "{seconds}");
        assert_eq!(json_of(answer, 429).await["code"], "queue_full");
    }
    assert_eq!((app.metric("easel_queue_depth").await, app.metric("easel_jobs_accepted_total").await), (2.0, 3.0));
    assert!(!app.folder.path().join("pictures/inputs").exists(), "the picture of a refused request was kept");
    drop(gate);
    for job in waiting.iter().chain([&running]) {
        assert_eq!(app.wait(job).await["status"], "succeeded");
    }
    assert_eq!(app.metric("easel_jobs_total{status=\"succeeded\"}").await, 3.0);
    app.finish().await;
}

#[tokio::test]
async fn jobs_are_painted_in_the_order_of_their_posts() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let mut jobs = vec![app.submit(&request(json!({}))).await];
    gate.arrival().await;
    for place in 1..4 {
        let job = app.submit(&request(json!({"seed": place}))).await;
        assert_eq!(job["queue_position"], place);
        jobs.push(job);
    }
    drop(gate);
    let mut starts: Vec<jiff::Timestamp> = Vec::new();
    for job in &jobs {
        starts.push(app.wait(job).await["started_at"].as_str().unwrap().parse().unwrap());
    }
    assert!(starts.is_sorted(), "{starts:?}");
    app.finish().await;
}
