//! Clients that keep the server waiting, and too many of them.

use std::{process::Command, time::Duration};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{interval, timeout},
};

use crate::support::{PATIENCE, Process, Raw, TestApp, easel_by, head, json_of, request, spawn_app};

/// Asks again and again, over one connection, until the server says that so many are open, this one among them.
async fn until_connections(app: &TestApp, count: usize) {
    let (mut asking, wanted) = (Raw::connect(app).await, format!("easel_connections {count}\n"));
    let asked = async { while !asking.get("/metrics").await.body.contains(&wanted) {} };
    timeout(PATIENCE, asked).await.expect("the connections did not end");
}

#[tokio::test]
async fn a_head_that_trickles_in_is_hung_up_while_others_are_served() {
    let app = TestApp::with(|config| config.server.header_timeout_seconds = 1).await;
    let mut slow = Raw::connect(&app).await;
    assert!(slow.send("GET /healthz HTTP/1.1\r\nx-slow: ").await);
    let mut pace = interval(Duration::from_millis(100));
    let mut served = 0;
    let hung_up = async {
        loop {
            tokio::select! {
                biased;
                byte = slow.byte() => return byte,
                _ = pace.tick() => {}
            }
            served += usize::from(app.get("/healthz").await.status() == 200);
            if !slow.send("a").await {
                return None;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, hung_up).await.expect("it may trickle for ever"), None);
    assert!(served > 0);
    app.finish().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_hung_up_and_one_that_rests_between_requests_is_not() {
    let app = TestApp::with(|config| config.server.header_timeout_seconds = 1).await;
    let mut resting = Raw::connect(&app).await;
    assert_eq!(resting.get("/healthz").await.status, 200);
    let mut silent = Raw::connect(&app).await;
    assert_eq!(silent.byte().await, None);
    assert_eq!(resting.get("/healthz").await.status, 200, "it has rested longer than a head may take");
    app.finish().await;
}

#[tokio::test]
async fn a_connection_that_rests_for_too_long_is_hung_up() {
    let app = TestApp::with(|config| config.server.idle_timeout_seconds = 1).await;
    let mut resting = Raw::connect(&app).await;
    for _ in 0..2 {
        assert_eq!(resting.get("/healthz").await.status, 200);
    }
    assert_eq!(resting.byte().await, None);
    app.finish().await;
}

#[tokio::test]
async fn a_connection_that_rests_after_a_refused_body_is_hung_up_like_any_other() {
    let app = TestApp::with(|config| config.server.idle_timeout_seconds = 1).await;
    let mut resting = Raw::connect(&app).await;
    assert!(
        resting
            .send("POST /v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n")
            .await
    );
    assert_eq!(resting.answer().await.status, 415);
    // It is read to its end elsewhere, and that end must start the clock of the connection.
    assert!(resting.send("hello").await);
    assert_eq!(resting.byte().await, None);
    app.finish().await;
}

#[tokio::test]
async fn a_second_head_that_trickles_in_is_hung_up_like_the_first() {
    let app = TestApp::with(|config| config.server.header_timeout_seconds = 1).await;
    let mut slow = Raw::connect(&app).await;
    assert_eq!(slow.get("/healthz").await.status, 200);
    assert!(slow.send("GET").await);
    assert_eq!(slow.byte().await, None);
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_answered_408() {
    let app = TestApp::with(|config| config.server.body_timeout_seconds = 1).await;
    let mut slow = Raw::connect(&app).await;
    let post = "POST /v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"prompt\"";
    assert!(slow.send(post).await);
    let answer = slow.answer().await;
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &problem["code"]), (408, &json!("body_timeout")));
    assert_eq!(problem["detail"], "the body did not arrive within 1 s");
    assert_eq!(slow.byte().await, None, "what is left of the body is not waited for");
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_takes_in_nothing_of_what_it_asked_for_is_hung_up() {
    let app = TestApp::with(|config| config.server.write_timeout_seconds = 1).await;
    let mut deaf = Raw::connect(&app).await;
    // Some 60 MB of answers: far more than the sockets' buffers hold.
    let requests = 2000;
    assert!(deaf.send(&head("GET", "/openapi.yaml").repeat(requests)).await);
    // The first answer begins, and then nothing more is read.
    assert!(deaf.byte().await.is_some());
    until_connections(&app, 1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let app = spawn_app().await;
    for headers in [format!("x-large: {}\r\n", "a".repeat(17 << 10)), "x-many: a\r\n".repeat(101)] {
        let mut large = Raw::connect(&app).await;
        assert!(large.send(&format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")).await);
        assert_eq!(large.answer().await.status, 431);
    }
    app.finish().await;
}

#[tokio::test]
async fn beyond_the_most_connections_a_new_one_waits_until_one_ends() {
    let app = TestApp::with(|config| config.server.max_connections = 4).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut connection = Raw::connect(&app).await;
        assert_eq!(connection.get("/healthz").await.status, 200);
        open.push(connection);
    }
    let mut fifth = Raw::connect(&app).await;
    assert!(fifth.send(&head("GET", "/healthz")).await);
    for connection in &mut open {
        assert!(connection.get("/metrics").await.body.contains("easel_connections 4\n"));
    }
    assert!(!fifth.has_unread(), "the fifth was served beside four others");
    open.pop();
    assert_eq!(fifth.answer().await.status, 200);
    drop((open, fifth));
    app.finish().await;
}

#[tokio::test]
async fn a_limit_of_open_files_that_is_too_low_is_said_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut low = Command::new("prlimit");
    low.arg("--nofile=300:300");
    let server = Process::spawn(easel_by(low, folder.path()), folder.path(), &[]);
    // Far more than there are descriptors: those that fit in are served, and when they go, the others.
    let crowd = join_all((0..400).map(|_| TcpStream::connect(server.url.strip_prefix("http://").unwrap()))).await;
    assert!(crowd.iter().all(Result::is_ok));
    drop(crowd);
    assert_eq!(server.paint(&request(json!({}))).await.len(), 1);
    assert!(!server.log().contains("no connection can be taken in"), "{}", server.log());
    let log = server.log();
    let said = log.lines().find(|line| line.contains("does not fit into the limit of open files")).expect(&log);
    let said: Value = serde_json::from_str(said).unwrap();
    assert_eq!((&said["files.limit"], &said["connections"]), (&json!(300), &json!(44)));
}

#[tokio::test]
async fn beyond_the_most_event_streams_of_a_client_one_more_is_answered_429() {
    let (app, go) = TestApp::loading(|config| config.server.max_event_streams = 2).await;
    let job = app.submit(&request(json!({}))).await;
    let (first, second) = (app.watch(&job).await, app.watch(&job).await);
    assert_eq!(app.metric("easel_event_streams").await, 2.0);
    let path = job["urls"]["events"].as_str().unwrap();
    let refused = app.get(path).await;
    assert!(refused.headers().contains_key("retry-after"));
    let problem = json_of(refused, 429).await;
    assert_eq!(
        (&problem["code"], &problem["detail"]),
        (&json!("too_many_streams"), &json!("this client has 2 event streams open, and may have no more"))
    );
    assert_eq!(app.job(&job).await["status"], "queued");
    drop(first);
    let again = async { while app.get(path).await.status() != 200 {} };
    timeout(PATIENCE, again).await.expect("a stream that has ended makes no room");
    go.send(()).unwrap();
    assert_eq!(second.last().await.name, "succeeded");
    let all_ended = async { while app.metric("easel_event_streams").await != 0.0 {} };
    timeout(PATIENCE, all_ended).await.expect("a stream is counted after its end");
    app.finish().await;
}

#[tokio::test]
async fn connections_without_a_request_end_with_the_server() {
    let app = TestApp::with(|config| {
        (config.server.header_timeout_seconds, config.server.idle_timeout_seconds) = (3600, 3600);
    })
    .await;
    let (mut silent, mut resting) = (Raw::connect(&app).await, Raw::connect(&app).await);
    assert_eq!(resting.get("/healthz").await.status, 200);
    app.stop().await.1.unwrap();
    assert_eq!((silent.byte().await, resting.byte().await), (None, None));
}

#[tokio::test]
async fn every_answer_tells_the_browser_what_not_to_do_with_it() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let picture = job["images"][0]["url"].as_str().unwrap();
    for (path, status) in [("/healthz", 200), ("/v1/nothing", 404), ("/v1/generate", 405), (picture, 200)] {
        let answer = app.get(path).await;
        assert_eq!(answer.status(), status);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cross-origin-resource-policy", "same-site"),
        ] {
            assert_eq!(answer.headers()[name], value, "{name} of {path}");
            assert_eq!(answer.headers().get_all(name).iter().count(), 1);
        }
        let caching = if path == picture { "private, max-age=31536000, immutable" } else { "no-store" };
        assert_eq!(answer.headers()["cache-control"], caching, "{path}");
    }
    app.finish().await;
}
