//! Kills, signals and restarts: the real binary in a process of its own.

use std::path::Path;

use easel::domain::sha256_hex;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{PATIENCE, Process, TestApp, easel, house_png, house_url, json_of, request, run, sha256s};

const MANY_ATTEMPTS: (&str, &str) = ("EASEL__DISPATCH__MAX_ATTEMPTS", "100");

/// Job `index` of a small load.
fn job_of_load(index: usize) -> Value {
    let mut body = request(json!({"seed": index, "num_inference_steps": 4 + index % 5, "num_images": 1 + index % 2}));
    if index % 4 == 3 {
        body["image"] = json!(house_url());
    }
    body
}

/// The pictures of jobs on a server that nobody disturbs.
async fn undisturbed(bodies: impl IntoIterator<Item = Value>) -> Vec<Vec<String>> {
    let app = crate::support::spawn_app().await;
    let mut pictures = Vec::new();
    for body in bodies {
        pictures.push(sha256s(&app.paint(&body).await));
    }
    app.finish().await;
    pictures
}

/// Waits until a job has done a step, so that what follows falls into the middle of painting.
async fn wait_for_a_step(server: &Process, job: &Value) {
    let path = format!("{}{}", server.url, job["urls"]["events"].as_str().unwrap());
    let mut stream = server.http.get(path).send().await.unwrap();
    let mut text = String::new();
    while !text.contains("event: progress") && !text.contains("event: succeeded") {
        let chunk = timeout(PATIENCE, stream.chunk()).await.expect("no event comes").unwrap();
        text += &String::from_utf8_lossy(&chunk.expect("the stream ended"));
    }
}

#[tokio::test]
async fn every_accepted_job_survives_kills_with_the_bytes_of_an_undisturbed_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Process::start(folder.path(), &[MANY_ATTEMPTS]);
    let mut accepted = Vec::new();
    for kill in 0..3 {
        for index in 4 * kill..4 * kill + 4 {
            let job = server.submit(&job_of_load(index)).await.unwrap();
            accepted.push(job);
        }
        wait_for_a_step(&server, &accepted[4 * kill]).await;
        server.kill();
        server = Process::start(folder.path(), &[MANY_ATTEMPTS]);
    }
    let (mut pictures, mut attempts) = (Vec::new(), 0);
    for job in &accepted {
        let job = server.wait(job).await;
        assert_eq!(job["status"], "succeeded", "{job}");
        attempts += job["attempts"].as_u64().unwrap();
        pictures.push(sha256s(&job));
    }
    assert!(attempts > accepted.len() as u64, "no kill has hit a running job");
    assert_eq!(pictures, undisturbed((0..12).map(job_of_load)).await);
}

#[tokio::test]
async fn a_finished_job_is_served_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Process::start(folder.path(), &[]);
    let job = server.submit(&request(json!({}))).await.unwrap();
    let before = server.wait(&job).await;
    server.kill();
    let server = Process::start(folder.path(), &[]);
    assert_eq!(server.job(&job).await, before);
    let picture = server.http.get(format!("{}{}", server.url, before["images"][0]["url"].as_str().unwrap())).send().await.unwrap();
    assert_eq!(before["images"][0]["sha256"], sha256_hex(&picture.bytes().await.unwrap()));
}

#[tokio::test]
async fn a_second_server_on_the_same_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Process::start(folder.path(), &[]);
    let second = run(easel(folder.path()).arg("serve"));
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("easel.db is in use by another easel process"), "{said}");
    assert_eq!(first.paint(&request(json!({}))).await.len(), 1, "the first server has suffered");
}

#[tokio::test]
async fn sigterm_lets_a_running_job_finish() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Process::start(folder.path(), &[]);
    let job = server.submit(&request(json!({"num_inference_steps": 40}))).await.unwrap();
    wait_for_a_step(&server, &job).await;
    server.terminate();
    assert_eq!(server.exit().code(), Some(0), "{}", server.log());
    let server = Process::start(folder.path(), &[]);
    let job = server.job(&job).await;
    assert_eq!((&job["status"], &job["attempts"]), (&json!("succeeded"), &json!(1)), "{job}");
}

#[tokio::test]
async fn sigterm_gives_back_what_does_not_finish_in_time_and_the_next_start_paints_it() {
    let folder = tempfile::tempdir().unwrap();
    let body = request(json!({"num_inference_steps": 100, "num_images": 2}));
    let mut server = Process::start(folder.path(), &[("EASEL__SERVER__DRAIN_SECONDS", "0")]);
    let job = server.submit(&body).await.unwrap();
    wait_for_a_step(&server, &job).await;
    server.terminate();
    assert_eq!(server.exit().code(), Some(0), "{}", server.log());
    // Given back, and not left to a lease that the next start finds void: then it would run alone, as one that may have killed the server.
    assert!(server.log().contains("gave the job back to the queue"), "{}", server.log());
    let server = Process::start(folder.path(), &[]);
    let job = server.wait(&job).await;
    assert_eq!((&job["status"], &job["attempts"]), (&json!("succeeded"), &json!(2)), "{job}");
    assert_eq!(vec![sha256s(&job)], undisturbed([body]).await);
}

#[tokio::test]
async fn a_server_that_drains_hands_its_jobs_to_the_next_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Process::start(folder.path(), &[("EASEL__DISPATCH__MAX_CANVASES", "2")]);
    let mut jobs = Vec::new();
    for index in 0..5 {
        jobs.push(server.submit(&job_of_load(index)).await.unwrap());
    }
    server.terminate();
    assert_eq!(server.exit().code(), Some(0), "{}", server.log());
    let server = Process::start(folder.path(), &[]);
    let mut pictures = Vec::new();
    for job in &jobs {
        let job = server.wait(job).await;
        assert_eq!(job["status"], "succeeded", "{job}");
        pictures.push(sha256s(&job));
    }
    assert_eq!(pictures, undisturbed((0..5).map(job_of_load)).await);
}

#[tokio::test]
async fn a_draining_server_takes_no_jobs_and_still_answers() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    let (http, url) = (app.http.clone(), app.url.clone());
    let stopped = tokio::spawn(app.stop());
    let expected = json!({"ready": false, "engine": true, "store": true, "draining": true});
    let mut said = Value::Null;
    let begun = async {
        while said != expected {
            said = http.get(format!("{url}/readyz")).send().await.unwrap().json().await.unwrap();
        }
    };
    let is_begun = timeout(PATIENCE, begun).await.is_ok();
    assert!(is_begun, "{said}");
    let refused = http.post(format!("{url}/v1/generate")).json(&request(json!({}))).send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    let problem = json_of(refused, 503).await;
    assert_eq!(
        (&problem["code"], &problem["detail"]),
        (&json!("draining"), &json!("the server is draining and accepts no new jobs"))
    );
    let running = http.get(format!("{url}{}", job["urls"]["self"].as_str().unwrap())).send().await.unwrap();
    assert_eq!(json_of(running, 200).await["status"], "running");
    drop(gate);
    stopped.await.unwrap().1.unwrap();
}

#[tokio::test]
async fn a_job_whose_input_picture_has_gone_fails_and_says_so() {
    let (app, go) = TestApp::loading(|_| {}).await;
    let job = app.submit(&request(json!({"image": house_url()}))).await;
    let input = app.folder.path().join("pictures/inputs").join(sha256_hex(&house_png()));
    std::fs::remove_file(input).unwrap();
    go.send(()).unwrap();
    let job = app.wait(&job).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("input_missing")));
    app.finish().await;
}

#[tokio::test]
async fn a_picture_is_on_the_disk_whole_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start(folder.path(), &[]);
    let job = server.submit(&request(json!({"num_images": 2}))).await.unwrap();
    let job = server.wait(&job).await;
    let stored = server.folder.join("pictures/pictures").join(job["id"].as_str().unwrap());
    assert_eq!(names(&stored), ["0.png", "1.png"]);
    for (index, sha256) in sha256s(&job).iter().enumerate() {
        assert_eq!(&sha256_hex(&std::fs::read(stored.join(format!("{index}.png"))).unwrap()), sha256);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
