//! Many canvases in one UNet call: that they share it, that no picture depends on it, and that a bad one harms no other.

use serde_json::{Value, json};

use crate::support::{Gate, PANICS_AT, TestApp, house_url, model_with_a_broken_word, request, sha256s, spawn_app};

/// Jobs that have nothing in common but their size and the UNet calls that they share.
fn company() -> [Value; 5] {
    [
        json!({"prompt": "a red house", "scheduler": "ddim", "num_inference_steps": 5, "seed": 1}),
        json!({"prompt": "two yellow stars", "scheduler": "euler", "num_inference_steps": 3, "guidance_scale": 1, "seed": 2}),
        json!({"prompt": "a blue boat", "scheduler": "dpmpp_2m_karras", "num_inference_steps": 4, "guidance_scale": 7.5}),
        json!({"prompt": "a purple cat", "image": house_url(), "strength": 0.6, "num_inference_steps": 6, "seed": 3}),
        json!({"prompt": "a heart", "negative_prompt": "red", "num_images": 2, "num_inference_steps": 2}),
    ]
    .map(request)
}

/// Submits four jobs or more so that the first three share a step, whatever the machine's load.
async fn submit_together(app: &TestApp, gate: &mut Gate, bodies: &[Value]) -> Vec<Value> {
    let mut jobs = vec![app.submit(&bodies[0]).await];
    // What one canvas takes is known after two steps; then others join.
    for _ in 0..2 {
        gate.arrival().await;
        gate.pass();
    }
    gate.arrival().await;
    for body in &bodies[1..] {
        jobs.push(app.submit(body).await);
    }
    // One job is sent to the device after the other: when the fourth is claimed, the two before it wait at the next step boundary.
    app.until_running(&jobs[3]).await;
    gate.pass();
    assert!(gate.arrival().await >= 3, "the step was not shared");
    jobs
}

async fn ends(app: &TestApp, jobs: &[Value]) -> Vec<Value> {
    let mut ended = Vec::new();
    for job in jobs {
        ended.push(app.wait(job).await);
    }
    ended
}

/// The pictures of a body on a server that paints nothing else.
async fn alone(bodies: &[Value]) -> Vec<Vec<String>> {
    let app = spawn_app().await;
    let mut pictures = Vec::new();
    for body in bodies {
        pictures.push(sha256s(&app.paint(body).await));
    }
    assert_eq!(app.metric("easel_jobs_total{status=\"succeeded\"}").await, bodies.len() as f64);
    app.finish().await;
    pictures
}

#[tokio::test]
async fn jobs_that_differ_in_everything_share_steps_and_are_painted_as_if_alone() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let jobs = submit_together(&app, &mut gate, &company()).await;
    drop(gate);
    let jobs = ends(&app, &jobs).await;
    assert!(jobs.iter().all(|job| job["status"] == "succeeded"), "{jobs:?}");
    // 5 + 3 + 4 + 3 + 2 × 2 steps of one canvas; the shared one alone saves two calls.
    assert_eq!(app.metric("easel_step_canvases_sum").await, 19.0);
    assert!(app.metric("easel_step_canvases_count").await <= 17.0);
    app.finish().await;
    assert_eq!(jobs.iter().map(sha256s).collect::<Vec<_>>(), alone(&company()).await);
}

#[tokio::test]
async fn a_canvas_joins_at_a_step_boundary_and_leaves_when_it_is_done() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let long = app.submit(&request(json!({"num_inference_steps": 50}))).await;
    for _ in 0..2 {
        assert_eq!(gate.arrival().await, 1);
        gate.pass();
    }
    let short = app.submit(&request(json!({"num_inference_steps": 2, "seed": 1}))).await;
    let mut canvases = gate.arrival().await;
    app.until_running(&short).await;
    // Claimed, it is on its way to the device, which may take longer than some of the steps.
    while canvases == 1 {
        gate.pass();
        app.job(&short).await;
        canvases = gate.arrival().await;
    }
    assert_eq!(canvases, 2);
    gate.pass();
    assert_eq!(gate.arrival().await, 2);
    gate.pass();
    assert_eq!(gate.arrival().await, 1);
    assert_eq!(app.wait(&short).await["status"], "succeeded");
    assert_eq!(app.job(&long).await["status"], "running");
    drop(gate);
    assert_eq!(app.wait(&long).await["status"], "succeeded");
    app.finish().await;
}

#[tokio::test]
async fn canvases_of_different_sizes_take_turns() {
    let (app, go) = TestApp::loading(|_| {}).await;
    let bodies = [request(json!({})), request(json!({"width": 72})), request(json!({"height": 72}))];
    let mut jobs = Vec::new();
    for body in &bodies {
        jobs.push(app.submit(body).await);
    }
    go.send(()).unwrap();
    let jobs = ends(&app, &jobs).await;
    assert_eq!((app.metric("easel_step_canvases_sum").await, app.metric("easel_step_canvases_count").await), (6.0, 6.0));
    app.finish().await;
    assert_eq!(jobs.iter().map(sha256s).collect::<Vec<_>>(), alone(&bodies).await);
}

#[tokio::test]
async fn no_step_has_more_rows_and_the_device_no_more_canvases_than_the_settings_say() {
    let (app, mut gate) = TestApp::gated(|config| (config.dispatch.max_canvases, config.dispatch.max_step_rows) = (3, 4)).await;
    let job = app.submit(&request(json!({"num_images": 5}))).await;
    // What one canvas takes is known after two steps. With guidance it takes two of the four rows.
    for canvases in [1, 1, 2] {
        assert_eq!(gate.arrival().await, canvases);
        gate.pass();
    }
    drop(gate);
    assert_eq!(app.wait(&job).await["images"].as_array().unwrap().len(), 5);
    assert_eq!(app.metric("easel_step_canvases_bucket{le=\"2\"}").await, app.metric("easel_step_canvases_count").await);
    assert_eq!(app.metric("easel_step_canvases_sum").await, 10.0);
    app.finish().await;
}

#[tokio::test]
async fn a_canvas_that_turns_to_nan_fails_and_its_company_is_painted_as_if_alone() {
    let folder = tempfile::tempdir().unwrap();
    model_with_a_broken_word(folder.path(), "umbrella");
    let path = folder.path().to_owned();
    let (app, mut gate) = TestApp::gated(|config| config.models[0].path = path).await;
    let [first, second, third, ..] = company();
    let broken = request(json!({"prompt": "an umbrella", "num_inference_steps": 4}));
    let jobs = submit_together(&app, &mut gate, &[first.clone(), broken, second.clone(), third.clone()]).await;
    drop(gate);
    let jobs = ends(&app, &jobs).await;
    assert_eq!((&jobs[1]["status"], &jobs[1]["error"]["code"]), (&json!("failed"), &json!("not_finite")));
    assert_eq!(jobs[1]["error"]["message"], "the picture's latents became NaN or infinite at step 1");
    assert_eq!((&jobs[1]["images"], &jobs[1]["attempts"]), (&json!([]), &json!(1)));
    app.finish().await;
    let company = [&jobs[0], &jobs[2], &jobs[3]].map(sha256s);
    assert_eq!(company.to_vec(), alone(&[first, second, third]).await);
}

#[tokio::test]
async fn a_canvas_that_makes_the_engine_panic_fails_and_its_company_is_painted_as_if_alone() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let [first, second, third, ..] = company();
    let bad = request(json!({"prompt": PANICS_AT, "num_inference_steps": 4}));
    let jobs = submit_together(&app, &mut gate, &[first.clone(), bad, second.clone(), third.clone()]).await;
    drop(gate);
    let jobs = ends(&app, &jobs).await;
    assert_eq!((&jobs[1]["status"], &jobs[1]["error"]["code"]), (&json!("failed"), &json!("engine_panicked")));
    assert_eq!(jobs[1]["error"]["message"], "the engine panicked: a canvas that nobody can paint");
    let company = [&jobs[0], &jobs[2], &jobs[3]].map(sha256s);
    // The device goes on as if nothing had been.
    assert_eq!(sha256s(&app.paint(&second).await), company[1]);
    assert_eq!(app.get("/readyz").await.status(), 200);
    app.finish().await;
    assert_eq!(company.to_vec(), alone(&[first, second, third]).await);
}
