//! Prompts with weights, editing and composition, through the door.

use easel::domain::decode_rgb;
use image::RgbImage;
use serde_json::{Value, json};

use crate::support::{TestApp, json_of, request, sha256s, spawn_app};

/// The picture of a request in AUTOMATIC1111's syntax, and the job's warnings. Its pixels: the file tells its prompt.
async fn painted(app: &TestApp, changes: Value) -> (RgbImage, Value) {
    let mut body = request(json!({"prompt_syntax": "weighted", "num_inference_steps": 4}));
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let job = app.paint(&body).await;
    (decode_rgb(&app.picture(&job, 0).await).unwrap(), job["warnings"].clone())
}

async fn picture(app: &TestApp, prompt: &str) -> RgbImage {
    painted(app, json!({"prompt": prompt})).await.0
}

#[tokio::test]
async fn a_long_prompt_is_painted_to_its_end() {
    let app = spawn_app().await;
    let long = "a teal robot to the left of a black cactus in the desert, ".repeat(8);
    let (whole, warnings) = painted(&app, json!({"prompt": format!("{long} at night")})).await;
    assert_eq!(warnings, json!([]));
    assert!(whole != picture(&app, &long).await);
    app.finish().await;
}

#[tokio::test]
async fn a_prompt_that_was_painted_before_is_not_read_again_and_makes_the_same_picture() {
    let body = json!({"prompt": "a (red:1.3) house BREAK on a hill", "prompt_syntax": "weighted", "num_inference_steps": 2});
    let mut pictures = Vec::new();
    // Two chunks of the prompt, and the empty one of the negative prompt.
    for (mib, hits, misses) in [(64, 3.0, 6.0), (0, 0.0, 9.0)] {
        let app = TestApp::with(|config| {
            (config.device.prompt_cache_mib, config.device.prompt_kv_cache_mib) = (mib, mib);
        })
        .await;
        for clip_skip in [None, None, Some(2)] {
            let mut body = request(body.clone());
            body["clip_skip"] = json!(clip_skip);
            pictures.push(sha256s(&app.paint(&body).await));
        }
        assert_eq!(app.metric("easel_prompt_chunks_total{cache=\"hit\"}").await, hits, "{mib}");
        assert_eq!(app.metric("easel_prompt_chunks_total{cache=\"miss\"}").await, misses, "{mib}");
        app.finish().await;
    }
    assert_eq!(pictures[..3], pictures[3..]);
    assert!(pictures[0] == pictures[1] && pictures[0] != pictures[2]);
}

#[tokio::test]
async fn weights_change_the_picture_and_their_absence_does_not() {
    let app = spawn_app().await;
    let plain = painted(&app, json!({"prompt": "a cat", "prompt_syntax": "plain"})).await.0;
    assert!(picture(&app, "a cat").await == plain);
    assert!(picture(&app, "a (cat:2)").await != plain);
    assert!(picture(&app, "a [cat]").await != plain);
    assert!(picture(&app, "a (cat:1.0)").await == plain);
    app.finish().await;
}

#[tokio::test]
async fn composed_prompts_are_neither_of_their_parts() {
    let app = spawn_app().await;
    let (cat, composed) = (picture(&app, "a cat").await, picture(&app, "a cat AND a house").await);
    assert!(composed != cat && composed != picture(&app, "a house").await);
    assert!(composed != picture(&app, "a cat AND a house :0.5").await);
    assert!(picture(&app, "a cat AND a house :0").await == cat);
    app.finish().await;
}

#[tokio::test]
async fn an_edit_that_never_comes_changes_nothing_and_one_at_the_start_everything() {
    let app = spawn_app().await;
    let (cat, house) = (picture(&app, "a cat").await, picture(&app, "a house").await);
    assert!(picture(&app, "a [cat:house:1.0]").await == cat);
    assert!(picture(&app, "a [cat:house:0]").await == house);
    let edited = picture(&app, "a [cat:house:0.5]").await;
    assert!(edited != cat && edited != house);
    assert!(picture(&app, "a [cat:house:1]").await != edited);
    app.finish().await;
}

#[tokio::test]
async fn clip_skip_reads_another_layer() {
    let app = spawn_app().await;
    let skipped = |layers: Value| painted(&app, json!({"prompt": "a cat", "clip_skip": layers}));
    let own = skipped(json!(null)).await.0;
    assert!(skipped(json!(1)).await.0 == own);
    assert!(skipped(json!(2)).await.0 != own);
    app.finish().await;
}

#[tokio::test]
async fn faults_are_told_by_field_and_column() {
    let app = spawn_app().await;
    let body = json!({"prompt": "a (cat:1.2.3)", "negative_prompt": "[a:b:2.5]", "prompt_syntax": "weighted"});
    let problem = json_of(app.post(&request(body)).await, 422).await;
    let expected = json!([
        {"pointer": "/prompt", "detail": "at column 8: a weight must be a number from -1000 to 1000, got \"1.2.3\""},
        {"pointer": "/negative_prompt",
         "detail": "at column 6: a number with a point is a fraction of the steps, from 0.0 to 1.0, got 2.5"},
    ]);
    assert_eq!(problem["errors"], expected);
    for (field, bad, detail) in [
        ("clip_skip", json!(0), "must be a whole number from 1 to 12, got 0"),
        ("clip_skip", json!(13), "must be a whole number from 1 to 12, got 13"),
        ("prompt_syntax", json!("compel"), "must be plain or weighted, got \"compel\""),
    ] {
        let problem = json_of(app.post(&request(json!({field: bad}))).await, 422).await;
        assert_eq!(problem["errors"], json!([{"pointer": format!("/{field}"), "detail": detail}]));
    }
    app.paint(&request(json!({"prompt": "a (cat:1.2.3)"}))).await;
    app.finish().await;
}
