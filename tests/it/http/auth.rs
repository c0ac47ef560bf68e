//! Keys: who may come in, whose jobs are whose, and what only an admin may do.

use easel::{
    config::{Config, KeyConfig},
    domain::sha256_hex,
};
use reqwest::{
    Response,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{PATIENCE, Process, TestApp, TestClient, json_of, request, spawn_app};

/// The key of the client of this name.
pub(super) fn key_of(name: &str) -> String {
    format!("easel_the-key-of-{name}")
}

/// What the settings say about it.
pub(super) fn key_config(name: &str) -> KeyConfig {
    KeyConfig {
        name: name.to_owned(),
        sha256: sha256_hex(key_of(name).as_bytes()),
        admin: false,
        requests_per_second: None,
        max_queued_jobs: None,
        max_running_jobs: None,
    }
}

fn alice_and_bob(config: &mut Config) {
    config.auth.keys = vec![KeyConfig { admin: true, ..key_config("alice") }, key_config("bob")];
}

async fn assert_unauthorized(answer: Response) {
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem = json_of(answer, 401).await;
    assert_eq!((&problem["code"], &problem["status"]), (&json!("unauthorized"), &json!(401)), "{problem}");
    assert!(!problem.to_string().contains("the-key-of"), "{problem}");
}

async fn ids(client: &TestClient) -> Vec<Value> {
    let page = json_of(client.get("/v1/jobs").await, 200).await;
    page["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect()
}

#[tokio::test]
async fn a_key_sees_its_own_jobs_and_no_others() {
    let app = TestApp::with(alice_and_bob).await;
    let (alice, bob) = (app.with_key(&key_of("alice")), app.with_key(&key_of("bob")));
    let job = alice.paint(&request(json!({}))).await;
    let itself = job["urls"]["self"].as_str().unwrap();
    for (method, part) in
        [("GET", ""), ("GET", "/events"), ("GET", "/images/0"), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")]
    {
        let answer = bob.request(method, &format!("{itself}{part}")).send().await.unwrap();
        assert_eq!(json_of(answer, 404).await["code"], "unknown_job", "{method} {part}");
    }
    assert_eq!((ids(&alice).await, ids(&bob).await), (vec![job["id"].clone()], vec![]));
    assert_eq!(alice.job(&job).await, job);
    assert_eq!(alice.watch(&job).await.last().await.data, job);
    assert!(!alice.picture(&job, 0).await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn a_job_that_runs_cannot_be_stopped_with_another_key() {
    let (app, mut gate) = TestApp::gated(alice_and_bob).await;
    let (alice, bob) = (app.with_key(&key_of("alice")), app.with_key(&key_of("bob")));
    let job = alice.submit(&request(json!({}))).await;
    gate.arrival().await;
    assert_eq!(bob.cancel(&job).await.status(), 404);
    assert_eq!(bob.request("DELETE", job["urls"]["self"].as_str().unwrap()).send().await.unwrap().status(), 404);
    drop(gate);
    assert_eq!(alice.wait(&job).await["status"], "succeeded");
    app.finish().await;
}

#[tokio::test]
async fn that_a_job_was_removed_is_told_to_its_own_key_only() {
    let app = TestApp::with(alice_and_bob).await;
    let (alice, bob) = (app.with_key(&key_of("alice")), app.with_key(&key_of("bob")));
    let job = alice.paint(&request(json!({}))).await;
    let itself = job["urls"]["self"].as_str().unwrap();
    assert!(alice.request("DELETE", itself).send().await.unwrap().status().is_success());
    assert_eq!(json_of(alice.get(itself).await, 410).await["code"], "gone");
    assert_eq!(json_of(bob.get(itself).await, 404).await["code"], "unknown_job");
    app.finish().await;
}

#[tokio::test]
async fn two_keys_may_give_their_requests_the_same_name() {
    let app = TestApp::with(alice_and_bob).await;
    let mut jobs = Vec::new();
    for (name, seed) in [("alice", 1), ("bob", 2), ("alice", 1)] {
        let post = app.with_key(&key_of(name)).request("POST", "/v1/generate").header("prefer", "wait=60");
        let post = post.header("idempotency-key", "the-first").json(&request(json!({"seed": seed})));
        jobs.push(json_of(post.send().await.unwrap(), 200).await["id"].clone());
    }
    assert!(jobs[0] == jobs[2] && jobs[0] != jobs[1], "{jobs:?}");
    app.finish().await;
}

#[tokio::test]
async fn without_a_key_that_is_known_nothing_of_v1_answers() {
    let app = TestApp::with(alice_and_bob).await;
    let job = "/v1/jobs/00000000-0000-4000-8000-000000000000";
    for client in [&*app, &app.with_key("wrong"), &app.with_key(&key_of("carol")), &app.with_key(&sha256_hex(b"alice"))] {
        for (method, path) in [
            ("POST", "/v1/generate"),
            ("GET", "/v1/jobs"),
            ("GET", job),
            ("GET", &format!("{job}/events")),
            ("GET", &format!("{job}/images/0")),
            ("DELETE", job),
            ("GET", "/v1/models"),
            ("POST", "/v1/queue/pause"),
            ("GET", "/v1/nothing"),
            ("GET", "/v1"),
            ("PUT", "/v1/generate"),
        ] {
            assert_unauthorized(client.request(method, path).send().await.unwrap()).await;
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn what_operators_ask_for_needs_no_key() {
    let app = TestApp::with(alice_and_bob).await;
    for path in ["/healthz", "/metrics", "/openapi.yaml"] {
        assert_eq!(app.get(path).await.status(), 200, "{path}");
    }
    assert_ne!(app.get("/readyz").await.status(), 401);
    assert_eq!(json_of(app.get("/nothing").await, 404).await["code"], "no_such_route");
    app.finish().await;
}

#[tokio::test]
async fn a_key_must_come_once_whole_and_as_a_bearers() {
    let app = TestApp::with(alice_and_bob).await;
    let key = key_of("alice");
    let send = async |lines: &[&[u8]]| {
        let header =
            |post, line: &&[u8]| reqwest::RequestBuilder::header(post, AUTHORIZATION, HeaderValue::from_bytes(line).unwrap());
        lines.iter().fold(app.request("GET", "/v1/jobs"), header).send().await.unwrap()
    };
    for good in [format!("Bearer {key}"), format!("bearer {key}"), format!("BEARER  {key}")] {
        assert_eq!(send(&[good.as_bytes()]).await.status(), 200, "{good}");
    }
    let bearer = format!("Bearer {key}");
    let long = format!("Bearer {}", "x".repeat(4096));
    for bad in
        [&key, "", "Bearer", "Bearer ", &format!("Basic {key}"), &format!("Bearer {key}x"), &bearer[..bearer.len() - 1], &long]
    {
        assert_unauthorized(send(&[bad.as_bytes()]).await).await;
    }
    assert_unauthorized(send(&[b"Bearer caf\xe9".as_slice()]).await).await;
    assert_unauthorized(send(&[format!("Bearer {key}, Bearer {key}").as_bytes()]).await).await;
    assert_unauthorized(send(&[bearer.as_bytes(), bearer.as_bytes()]).await).await;
    app.finish().await;
}

/// The head of a POST with a wrong key, sent; the body is still to come.
async fn begin_a_wrong_post(app: &TestApp, content_length: usize) -> TcpStream {
    let mut socket = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /v1/generate HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer wrong\r\ncontent-length: {content_length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

async fn assert_status_401(mut socket: TcpStream) {
    let mut status = [0; 12];
    timeout(PATIENCE, socket.read_exact(&mut status)).await.expect("no answer").unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
}

#[tokio::test]
async fn a_wrong_key_is_answered_before_the_body_comes() {
    let app = TestApp::with(alice_and_bob).await;
    assert_status_401(begin_a_wrong_post(&app, 1_000_000).await).await;
    app.finish().await;
}

#[tokio::test]
async fn who_sends_all_of_a_body_before_reading_is_told_that_the_key_is_wrong() {
    let app = TestApp::with(alice_and_bob).await;
    // More than the sockets' buffers hold.
    let body = vec![b' '; 16 << 20];
    let mut socket = begin_a_wrong_post(&app, body.len()).await;
    timeout(PATIENCE, socket.write_all(&body)).await.expect("nobody takes the body").unwrap();
    assert_status_401(socket).await;
    app.finish().await;
}

#[tokio::test]
async fn without_keys_an_authorization_header_means_nothing() {
    let app = spawn_app().await;
    let job = app.with_key("sk-for-another-server").paint(&request(json!({}))).await;
    assert_eq!(app.job(&job).await, job);
    app.finish().await;
}

#[tokio::test]
async fn where_everybody_may_come_in_beside_keys_a_wrong_key_is_still_wrong() {
    let open = |config: &mut Config| {
        alice_and_bob(config);
        config.auth.allow_anonymous = true;
    };
    let app = TestApp::with(open).await;
    let alice = app.with_key(&key_of("alice"));
    let job = app.paint(&request(json!({}))).await;
    assert_eq!((ids(&app).await, ids(&alice).await), (vec![job["id"].clone()], vec![]));
    assert_eq!(alice.get(job["urls"]["self"].as_str().unwrap()).await.status(), 404);
    assert_unauthorized(app.with_key("wrong").get("/v1/jobs").await).await;
    let pause = app.request("POST", "/v1/queue/pause").send().await.unwrap();
    assert_eq!(json_of(pause, 403).await["code"], "forbidden");
    app.finish().await;
}

#[tokio::test]
async fn only_an_admin_pauses_the_queue_and_lets_it_go_on() {
    let app = TestApp::with(alice_and_bob).await;
    let (alice, bob) = (app.with_key(&key_of("alice")), app.with_key(&key_of("bob")));
    for (turn, paused) in [("pause", true), ("resume", false)] {
        let path = format!("/v1/queue/{turn}");
        let refused = json_of(bob.request("POST", &path).send().await.unwrap(), 403).await;
        assert_eq!(refused["code"], "forbidden");
        assert_eq!(json_of(bob.get("/v1/queue").await, 200).await["paused"], !paused);
        assert_eq!(json_of(alice.request("POST", &path).send().await.unwrap(), 200).await["paused"], paused);
        assert_eq!(json_of(bob.get("/v1/queue").await, 200).await["paused"], paused);
    }
    app.finish().await;
}

#[tokio::test]
async fn where_there_are_no_keys_everybody_is_an_admin() {
    let app = spawn_app().await;
    for turn in ["pause", "resume"] {
        let answer = app.request("POST", &format!("/v1/queue/{turn}")).send().await.unwrap();
        assert_eq!(json_of(answer, 200).await["paused"], turn == "pause");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing_through_a_browser() {
    let (app, gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({}))).await;
    let (itself, cancel) = (job["urls"]["self"].as_str().unwrap(), job["urls"]["cancel"].as_str().unwrap());
    let from =
        async |site: &str, method: &str, path: &str| app.request(method, path).header("sec-fetch-site", site).send().await.unwrap();
    for (method, path) in [("POST", "/v1/generate"), ("POST", cancel), ("DELETE", itself), ("POST", "/v1/queue/pause")] {
        // Another port of this machine is the same site, and another server.
        for site in ["cross-site", "same-site"] {
            let problem = json_of(from(site, method, path).await, 403).await;
            assert_eq!(problem["code"], "cross_site", "{method} {path}");
        }
    }
    assert_eq!(from("cross-site", "GET", itself).await.status(), 200);
    for site in ["same-origin", "none"] {
        assert_eq!(from(site, "POST", "/v1/queue/resume").await.status(), 200, "{site}");
    }
    drop(gate);
    assert_eq!(app.wait(&job).await["status"], "succeeded");
    app.finish().await;
}

#[tokio::test]
async fn whoever_has_a_key_may_use_it_from_any_page() {
    let app = TestApp::with(alice_and_bob).await;
    let post = app.with_key(&key_of("alice")).request("POST", "/v1/queue/resume").header("sec-fetch-site", "cross-site");
    assert_eq!(post.send().await.unwrap().status(), 200);
    app.finish().await;
}

#[tokio::test]
async fn the_log_names_the_client_and_never_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let (key, wrong) = (key_of("alice"), "easel_a-key-that-is-wrong");
    let keys = format!("[{{name=\"alice\",sha256=\"{}\"}}]", sha256_hex(key.as_bytes()));
    let mut server = Process::start(folder.path(), &[("EASEL__AUTH__KEYS", &keys), ("EASEL__LOG__LEVEL", "trace")]);
    let get = |header: &str| server.http.get(format!("{}/v1/models", server.url)).header(AUTHORIZATION, header);
    for (header, status) in [
        (format!("Bearer {key}"), 200),
        (format!("Bearer {wrong}"), 401),
        (format!("Basic {key}"), 401),
        (key.clone(), 401),
        (format!("Bearer {key} {key}"), 401),
    ] {
        assert_eq!(get(&header).send().await.unwrap().status(), status, "{header}");
    }
    server.terminate();
    assert_eq!(server.exit().code(), Some(0));
    let log = server.log();
    assert!(!log.contains(&key) && !log.contains(wrong), "{log}");
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let clients: Vec<(Value, Value)> = lines
        .filter(|line| !line["http.status"].is_null())
        .map(|line| (line["http.status"].clone(), line["span"]["client"].clone()))
        .collect();
    assert_eq!(clients[0], (json!(200), json!("alice")), "{log}");
    assert!(clients.len() == 5 && clients[1..].iter().all(|line| *line == (json!(401), Value::Null)), "{log}");
}
