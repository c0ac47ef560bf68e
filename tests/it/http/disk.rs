//! Disks that are full or read-only, and databases that are locked or damaged: a clear error, nothing touched, and all goes on when
//! the cause is gone.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    path::{Path, PathBuf},
};

use easel::domain::sha256_hex;
use futures::future::join_all;
use reqwest::Response;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time::timeout;

use crate::support::{Disk, PATIENCE, Process, TestApp, json_of, request, run, sha256s, spawn_app};

/// A job that is found again soon when it could not be given back.
const SHORT_LEASE: (&str, &str) = ("EASEL__DISPATCH__LEASE_SECONDS", "1");

/// Asks again and again until the answer is yes.
async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let asked = async { while !condition().await {} };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{what} has not come"));
}

async fn get(server: &Process, path: &str) -> Response {
    server.http.get(format!("{}{path}", server.url)).send().await.unwrap()
}

async fn post(server: &Process, body: &Value) -> Response {
    server.http.post(format!("{}/v1/generate", server.url)).json(body).send().await.unwrap()
}

async fn assert_unavailable(refused: Response) {
    assert!(refused.headers().contains_key("retry-after"));
    let problem = json_of(refused, 503).await;
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    assert_eq!(problem["detail"], "the server cannot reach its jobs or pictures at the moment");
}

/// Posts until the disk takes no more; answers the jobs that it took.
async fn post_until_refused(server: &Process) -> Vec<Value> {
    let mut accepted = Vec::new();
    let posting = async {
        loop {
            let answer = post(server, &request(json!({}))).await;
            if answer.status() != 202 {
                return assert_unavailable(answer).await;
            }
            accepted.push(answer.json().await.unwrap());
        }
    };
    timeout(PATIENCE, posting).await.expect("a full disk takes every job");
    accepted
}

async fn until_a_step(server: &Process, job: &Value) {
    let mut stream = get(server, job["urls"]["events"].as_str().unwrap()).await;
    let mut text = String::new();
    while !text.contains("event: progress") {
        let chunk = timeout(PATIENCE, stream.chunk()).await.expect("no event comes").unwrap();
        text += &String::from_utf8_lossy(&chunk.expect("the stream ended"));
    }
}

async fn until_ready(server: &Process, status: u16) {
    until("readiness", async || get(server, "/readyz").await.status() == status).await;
}

async fn assert_painted(server: &Process, jobs: &[Value]) {
    for job in jobs {
        let job = server.wait(job).await;
        assert_eq!(job["status"], "succeeded", "{job}");
        let file = get(server, job["images"][0]["url"].as_str().unwrap()).await.bytes().await.unwrap();
        assert_eq!(sha256s(&job), [sha256_hex(&file)]);
    }
}

async fn connect(database: &Path) -> SqliteConnection {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(database)).await.unwrap()
}

/// Checks a database that no server has open any more. It is copied first: SQLite does not find its way into another namespace.
async fn assert_whole(folder: &Path) {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let mut database = connect(&copy.path().join("easel.db")).await;
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut database).await.unwrap();
    assert_eq!(verdict, "ok");
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_costs_no_job_and_all_goes_on_when_there_is_room() {
    let disk = Disk::new();
    let mut server = Process::on(&disk, &[SHORT_LEASE]);
    let before = server.paint(&request(json!({}))).await;
    let running = server.submit(&request(json!({"num_inference_steps": 150}))).await.unwrap();
    until_a_step(&server, &running).await;
    disk.fill();
    let mut jobs = post_until_refused(&server).await;
    jobs.push(running);
    for job in &jobs {
        assert_eq!(get(&server, job["urls"]["self"].as_str().unwrap()).await.status(), 200);
    }
    assert_eq!(get(&server, "/healthz").await.status(), 200);
    until_ready(&server, 503).await;
    until("the end that cannot be stored", async || server.log().contains("could not store the job's")).await;
    disk.make_room();
    assert_painted(&server, &jobs).await;
    assert_eq!(server.paint(&request(json!({}))).await, before, "a picture that was painted after it differs from one before");
    until_ready(&server, 200).await;
    server.terminate();
    assert_eq!(server.exit().code(), Some(0), "{}", server.log());
    assert_whole(&disk.outside()).await;
}

#[tokio::test]
async fn a_server_that_died_on_a_full_disk_starts_again_when_there_is_room() {
    let disk = Disk::new();
    let mut server = Process::on(&disk, &[]);
    let running = server.submit(&request(json!({"num_inference_steps": 60}))).await.unwrap();
    until_a_step(&server, &running).await;
    disk.fill();
    let mut jobs = post_until_refused(&server).await;
    jobs.push(running);
    server.kill();
    let refused = run(disk.easel().arg("serve"));
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("disk is full") || said.contains("No space left on device"), "{said}");
    disk.make_room();
    let mut server = Process::on(&disk, &[]);
    assert_painted(&server, &jobs).await;
    server.terminate();
    assert_eq!(server.exit().code(), Some(0), "{}", server.log());
    assert_whole(&disk.outside()).await;
}

#[tokio::test]
async fn a_picture_folder_that_becomes_read_only_costs_no_job() {
    let disk = Disk::new();
    let server = Process::on(&disk, &[SHORT_LEASE]);
    let before = server.paint(&request(json!({}))).await;
    disk.remount_pictures("ro");
    let job = server.submit(&request(json!({}))).await.unwrap();
    until("the picture that cannot be stored", async || server.log().contains("could not store the job's pictures")).await;
    until_ready(&server, 503).await;
    disk.remount_pictures("rw");
    assert_painted(&server, &[job]).await;
    until_ready(&server, 200).await;
    assert_eq!(server.paint(&request(json!({}))).await, before);
}

/// Every file under a folder with its content's SHA-256.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), sha256_hex(&fs::read(&path).unwrap()))),
        }
    }
    found
}

#[tokio::test]
async fn a_start_on_a_read_only_disk_gives_one_clear_error_and_touches_nothing() {
    let disk = Disk::new();
    let mut server = Process::on(&disk, &[]);
    server.paint(&request(json!({}))).await;
    server.kill();
    let before = files(&disk.outside());
    disk.make_read_only();
    let refused = run(disk.easel().arg("serve"));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system") && said.contains("easel.db"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(files(&disk.outside()), before);
}

#[tokio::test]
async fn a_database_that_somebody_else_locks_is_answered_503_in_bounded_time_and_works_again_afterwards() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let mut backup = connect(&app.folder.path().join("easel.db")).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut backup).await.unwrap();
    // More than could each wait for the lock, one after the other.
    let body = request(json!({}));
    let posts = join_all((0..30).map(|_| app.post(&body)));
    let reads = async { assert_eq!(app.job(&job).await["status"], "succeeded") };
    let (refused, ()) = tokio::join!(posts, reads);
    for answer in refused {
        assert_unavailable(answer).await;
    }
    assert_eq!(json_of(app.get("/readyz").await, 503).await["store"], false);
    sqlx::query("ROLLBACK").execute(&mut backup).await.unwrap();
    assert_eq!(sha256s(&app.paint(&body).await), sha256s(&job));
    until("readiness", async || app.get("/readyz").await.status() == 200).await;
    app.finish().await;
}

#[tokio::test]
async fn a_database_that_is_damaged_while_the_server_runs_is_a_503_and_does_not_end_it() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let database = app.folder.path().join("easel.db");
    // What is in the write-ahead log goes into the file, where it can be spoilt.
    let mut other = connect(&database).await;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let mut bytes = fs::read(&database).unwrap();
    bytes[4096..].fill(0xa5);
    fs::write(&database, &bytes).unwrap();
    assert_unavailable(app.get(job["urls"]["self"].as_str().unwrap()).await).await;
    assert_unavailable(app.request("POST", "/v1/generate").json(&request(json!({}))).send().await.unwrap()).await;
    assert_eq!(json_of(app.get("/readyz").await, 503).await["store"], false);
    assert_eq!(app.get("/healthz").await.status(), 200);
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn a_job_that_comes_from_the_future_is_painted_with_times_in_order() {
    let (app, go) = TestApp::loading(|_| {}).await;
    let job = app.submit(&request(json!({}))).await;
    // As after a clock that was an hour ahead has been set right.
    let mut database = connect(&app.folder.path().join("easel.db")).await;
    let ahead = "UPDATE jobs SET created_at = strftime('%Y-%m-%dT%H:%M:%f000000Z', 'now', '+1 hour')";
    assert_eq!(sqlx::query(ahead).execute(&mut database).await.unwrap().rows_affected(), 1);
    database.close().await.unwrap();
    go.send(()).unwrap();
    let job = app.wait(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    let time = |name: &str| job[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("created_at") > jiff::Timestamp::now());
    assert!(time("created_at") <= time("started_at") && time("started_at") <= time("finished_at"), "{job}");
    let timing = |name: &str| job["timings"][name].as_f64().unwrap();
    assert_eq!(timing("queue_ms"), 0.0);
    assert!(timing("total_ms") >= timing("denoise_ms") && timing("total_ms") < 3_600_000.0, "{job}");
    app.finish().await;
}
