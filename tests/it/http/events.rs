//! Watching a job.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Events, LARGE_PREVIEWS_AT, PATIENCE, SseEvent, TestApp, request, sha256s, spawn_app};

fn names(events: &[SseEvent]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

fn assert_ids_rise(events: &[SseEvent]) {
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id), "{events:?}");
}

/// Watches a job from before its first step to its end.
async fn watched(body: Value) -> (TestApp, Value, Vec<SseEvent>) {
    let (app, go) = TestApp::loading(|_| {}).await;
    let job = app.submit(&request(body)).await;
    let events = app.watch(&job).await;
    go.send(()).unwrap();
    (app, job, events.all().await)
}

async fn resume(app: &TestApp, job: &Value, id: u64) -> reqwest::Response {
    let path = job["urls"]["events"].as_str().unwrap();
    app.request("GET", path).header("last-event-id", id.to_string()).send().await.unwrap()
}

#[tokio::test]
async fn a_watcher_sees_the_job_as_it_is_and_then_all_that_happens_in_order() {
    let (app, job, events) = watched(json!({"num_inference_steps": 3})).await;
    assert_eq!(names(&events), ["snapshot", "started", "progress", "progress", "progress", "succeeded"]);
    assert_ids_rise(&events);
    assert_eq!(events[0].data, job);
    let steps: Vec<Value> = events[2..5].iter().map(|event| event.data["step"].clone()).collect();
    assert_eq!(steps, [1, 2, 3]);
    for progress in &events[2..5] {
        assert_eq!(progress.data["num_inference_steps"], 3);
        assert!(progress.data["steps_per_second"].as_f64() > Some(0.0) && progress.data["eta_seconds"].as_f64() >= Some(0.0));
    }
    let etas: Vec<f64> = events[2..5].iter().map(|event| event.data["eta_seconds"].as_f64().unwrap()).collect();
    assert!(etas[2] < etas[0], "{etas:?}");
    assert_eq!(events[5].data, app.job(&job).await);
    assert!(events[1].id > 1_000_000 && events[5].id < 2_000_000, "ids of the first attempt: {events:?}");
    app.finish().await;
}

#[tokio::test]
async fn previews_show_every_picture_every_so_many_steps_and_never_the_last() {
    let (app, _, events) = watched(json!({"num_inference_steps": 30, "preview_every": 10, "num_images": 2})).await;
    let previews: Vec<&SseEvent> = events.iter().filter(|event| event.name == "preview").collect();
    let mut shown: Vec<(u64, u64)> = Vec::new();
    for preview in previews {
        assert_eq!(preview.data["content_type"], "image/png");
        let file = STANDARD.decode(preview.data["b64"].as_str().unwrap()).unwrap();
        let picture = image::load_from_memory_with_format(&file, image::ImageFormat::Png).unwrap();
        assert_eq!(json!([picture.width(), picture.height()]), json!([preview.data["width"], preview.data["height"]]));
        shown.push((preview.data["step"].as_u64().unwrap(), preview.data["index"].as_u64().unwrap()));
    }
    shown.sort_unstable();
    assert_eq!(shown, [(10, 0), (10, 1), (20, 0), (20, 1)]);
    assert_ids_rise(&events);
    app.finish().await;
}

#[tokio::test]
async fn previews_come_closer_to_the_picture_step_by_step() {
    let (app, job, events) = watched(json!({"num_inference_steps": 40, "preview_every": 1, "width": 128, "height": 128})).await;
    let file = app.picture(&app.job(&job).await, 0).await;
    let picture = image::load_from_memory(&file).unwrap();
    let distance = |event: &SseEvent| {
        let preview = image::load_from_memory(&STANDARD.decode(event.data["b64"].as_str().unwrap()).unwrap()).unwrap().into_rgb8();
        let small = picture.resize_exact(preview.width(), preview.height(), image::imageops::FilterType::Triangle).into_rgb8();
        let differences = preview.iter().zip(small.iter()).map(|(a, b)| f64::from(a.abs_diff(*b)));
        differences.sum::<f64>() / small.len() as f64
    };
    let distances: Vec<f64> = events.iter().filter(|event| event.name == "preview").map(distance).collect();
    let (first, last) = (distances[0], distances[distances.len() - 1]);
    assert!(last < first / 2.0, "mean differences in a colour channel, 0 to 255: {distances:?}");
    app.finish().await;
}

#[tokio::test]
async fn no_preview_is_made_when_none_is_asked_for() {
    let (app, _, events) = watched(json!({"num_inference_steps": 4, "preview_every": 0})).await;
    assert!(!names(&events).contains(&"preview"), "{events:?}");
    app.finish().await;
}

#[tokio::test]
async fn watching_does_not_change_the_picture() {
    let (app, job, _) = watched(json!({"num_inference_steps": 4, "preview_every": 1})).await;
    let unwatched = app.paint(&request(json!({"num_inference_steps": 4, "preview_every": 0}))).await;
    assert_eq!(sha256s(&app.job(&job).await), sha256s(&unwatched));
    app.finish().await;
}

#[tokio::test]
async fn a_late_watcher_gets_the_job_and_its_end() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let events = app.watch(&job).await.all().await;
    assert_eq!(names(&events), ["snapshot", "succeeded"]);
    assert_ids_rise(&events);
    assert_eq!((&events[0].data, &events[1].data), (&job, &job));
    app.finish().await;
}

#[tokio::test]
async fn a_watcher_who_has_seen_the_end_is_told_not_to_come_back() {
    let (app, job, events) = watched(json!({})).await;
    let last = events.last().unwrap().id;
    assert_eq!(resume(&app, &job, last).await.status(), 204);
    let before = Events::of(resume(&app, &job, last - 1).await).all().await;
    assert_eq!(names(&before), ["snapshot", "succeeded"]);
    assert_eq!(before[1].id, last);
    app.finish().await;
}

#[tokio::test]
async fn a_watcher_who_comes_back_gets_the_present_and_no_past() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&request(json!({"num_inference_steps": 4, "preview_every": 1}))).await;
    let mut first = app.watch(&job).await;
    for _ in 0..2 {
        gate.arrival().await;
        gate.pass();
    }
    let seen = first.until("progress").await;
    drop(first);
    gate.arrival().await;
    let mut again = Events::of(resume(&app, &job, seen.id).await);
    let snapshot = again.next().await.unwrap();
    assert_eq!((snapshot.name.as_str(), &snapshot.data["progress"]["step"]), ("snapshot", &json!(2)));
    assert!(snapshot.id > seen.id);
    drop(gate);
    let rest = again.all().await;
    let steps: Vec<&Value> = rest.iter().filter(|event| event.name == "progress").map(|event| &event.data["step"]).collect();
    assert_eq!((steps, rest.last().unwrap().name.as_str()), (vec![&json!(3), &json!(4)], "succeeded"));
    assert!(rest[0].id > snapshot.id);
    assert_ids_rise(&rest);
    app.finish().await;
}

#[tokio::test]
async fn a_watcher_sees_the_cancel() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let (running, queued) = (app.submit(&request(json!({}))).await, app.submit(&request(json!({}))).await);
    gate.arrival().await;
    let (mut watcher, other) = (app.watch(&running).await, app.watch(&queued).await);
    assert_eq!(watcher.next().await.unwrap().data["status"], "running");
    app.cancel(&queued).await;
    app.cancel(&running).await;
    drop(gate);
    for events in [watcher.all().await, other.all().await] {
        let last = events.last().unwrap();
        assert_eq!((last.name.as_str(), &last.data["status"]), ("cancelled", &json!("cancelled")));
    }
    app.finish().await;
}

#[tokio::test]
async fn positions_fall_as_the_queue_moves() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let first = app.submit(&request(json!({}))).await;
    gate.arrival().await;
    for seed in 0..2 {
        app.submit(&request(json!({"seed": seed}))).await;
    }
    let last = app.submit(&request(json!({"seed": 9}))).await;
    let watcher = app.watch(&last).await;
    drop(gate);
    let events = watcher.all().await;
    let position = |event: &SseEvent| event.data["queue_position"].as_u64();
    assert_eq!(position(&events[0]), Some(3));
    let positions: Vec<u64> = events.iter().filter(|event| event.name == "queued").filter_map(position).collect();
    assert_eq!(positions, [2, 1]);
    assert_eq!(names(&events)[3..], ["started", "progress", "progress", "succeeded"]);
    assert_ids_rise(&events);
    app.wait(&first).await;
    app.finish().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_holds_nobody_up_and_loses_progress_but_not_the_end() {
    let (app, mut gate) = TestApp::gated(|config| config.server.write_timeout_seconds = 3600).await;
    // Two megabytes a preview: far more than the sockets' buffers and the bus's ring hold.
    let body = json!({"prompt": LARGE_PREVIEWS_AT, "num_inference_steps": 50, "preview_every": 1, "guidance_scale": 1});
    let long = app.submit(&request(body)).await;
    gate.arrival().await;
    let mut deaf = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", long["urls"]["events"].as_str().unwrap());
    deaf.write_all(head.as_bytes()).await.unwrap();
    // The watcher is there, and then reads nothing more.
    deaf.read_exact(&mut [0; 12]).await.unwrap();
    // Another one sees to it that every preview is made, so that they are certainly too many.
    let mut keen = app.watch(&long).await;
    for _ in 1..50 {
        gate.pass();
        keen.until("preview").await;
    }
    drop((gate, keen));
    assert_eq!(app.paint(&request(json!({"seed": 8}))).await["status"], "succeeded");
    assert_eq!(app.wait(&long).await["status"], "succeeded");
    let mut unread = Vec::new();
    timeout(PATIENCE, deaf.read_to_end(&mut unread)).await.expect("the stream does not end").unwrap();
    let unread = String::from_utf8_lossy(&unread);
    assert!(unread.contains("event: succeeded"), "the stream ended without the end");
    assert!(unread.matches("event: progress").count() < 50, "the reader was never behind");
    app.finish().await;
}

#[tokio::test]
async fn a_quiet_stream_is_kept_open_by_comments() {
    let (app, go) = TestApp::loading(|config| config.server.keep_alive_seconds = 1).await;
    let job = app.submit(&request(json!({}))).await;
    let mut stream = app.get(job["urls"]["events"].as_str().unwrap()).await;
    let mut text = String::new();
    while !text.contains(": keep-alive\n") {
        text += std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream ended")).unwrap();
    }
    assert!(!text.contains("event: started"), "{text}");
    go.send(()).unwrap();
    assert_eq!(app.wait(&job).await["status"], "succeeded");
    app.finish().await;
}

#[tokio::test]
async fn a_server_that_stops_ends_every_stream() {
    let (app, go) = TestApp::loading(|config| config.server.drain_seconds = 1).await;
    let job = app.submit(&request(json!({}))).await;
    let watcher = app.watch(&job).await;
    // The engine is still being loaded, so the drain cannot end before it is let go.
    let (stopped, events, ()) = tokio::join!(app.stop(), watcher.all(), async { drop(go) });
    stopped.1.unwrap();
    assert_eq!(names(&events)[0], "snapshot");
}
