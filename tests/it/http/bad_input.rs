//! What is refused, and what the answer says about it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::stream;
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{TestApp, house_png, json_of, request, spawn_app};

/// Fails when a problem document lacks something or has a wrong media type; answers it.
async fn problem(answer: Response, status: u16) -> Value {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let problem = json_of(answer, status).await;
    assert_eq!((&problem["status"], &problem["request_id"]), (&json!(status), &json!(id)));
    assert_eq!(problem["type"], format!("urn:easel:problem:{}", problem["code"].as_str().unwrap()));
    assert!(!problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty(), "{problem}");
    problem
}

async fn post_text(app: &TestApp, body: impl Into<reqwest::Body>) -> Response {
    app.send(app.request("POST", "/v1/generate").header("content-type", "application/json").body(body)).await
}

/// A PNG whose header says that it has so many pixels, and whose data end after a few bytes.
fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    // The header of a zlib stream.
    writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9C]).unwrap();
    drop(writer);
    file
}

/// Each bad field, where it is and what its answer says.
fn bad_fields() -> Vec<(Value, &'static str, &'static str)> {
    let side = "must be a multiple of 8 from 64 to 2048, got";
    let picture = "must be a PNG, JPEG or WebP picture of at most 4096 × 4096 pixels";
    let base64 = |bytes: &[u8]| json!({"image": STANDARD.encode(bytes)});
    let house = house_png();
    vec![
        (json!({"prompt": 7}), "/prompt", "must be a string of at most 10000 characters, got 7"),
        (json!({"prompt": null}), "/prompt", "must be a string of at most 10000 characters, got null"),
        (json!({"prompt": "a".repeat(10_001)}), "/prompt", "must have at most 10000 characters, got 10001"),
        (json!({"prompt": "a\0b"}), "/prompt", "must not contain the character U+0000"),
        (json!({"negative_prompt": []}), "/negative_prompt", "must be a string of at most 10000 characters, got an array"),
        (json!({"width": 127}), "/width", side),
        (json!({"width": 0}), "/width", side),
        (json!({"width": 56}), "/width", side),
        (json!({"height": 2056}), "/height", side),
        (json!({"height": 1e9}), "/height", side),
        (json!({"height": "64"}), "/height", side),
        (json!({"width": 64.5}), "/width", side),
        (json!({"width": -64}), "/width", side),
        (json!({"num_inference_steps": 0}), "/num_inference_steps", "must be a whole number from 1 to 150, got 0"),
        (json!({"num_inference_steps": 10_000}), "/num_inference_steps", "must be a whole number from 1 to 150, got 10000"),
        (json!({"num_inference_steps": 2.5}), "/num_inference_steps", "must be a whole number from 1 to 150, got 2.5"),
        (json!({"num_inference_steps": true}), "/num_inference_steps", "must be a whole number from 1 to 150, got true"),
        (json!({"guidance_scale": 50.1}), "/guidance_scale", "must be a number from 0 to 50, got 50.1"),
        (json!({"guidance_scale": -1}), "/guidance_scale", "must be a number from 0 to 50, got -1"),
        (json!({"guidance_scale": "NaN"}), "/guidance_scale", "must be a number from 0 to 50, got \"NaN\""),
        (json!({"scheduler": "magic"}), "/scheduler", "must be one of ddim, ddpm, pndm, "),
        (json!({"eta": 1.5}), "/eta", "must be a number from 0 to 1, got 1.5"),
        (json!({"model": "sdxl"}), "/model", "must be one of demo; got \"sdxl\""),
        (json!({"seed": -1}), "/seed", "must be a whole number from 0 to 9007199254740991, got -1"),
        (json!({"seed": 1_u64 << 53}), "/seed", "must be a whole number from 0 to 9007199254740991, got 9007199254740992"),
        (json!({"noise_source": "gpu"}), "/noise_source", "must be one of cpu, philox; got \"gpu\""),
        (json!({"num_images": 0}), "/num_images", "must be a whole number from 1 to 16, got 0"),
        (json!({"num_images": 17}), "/num_images", "must be a whole number from 1 to 16, got 17"),
        (json!({"preview_every": 151}), "/preview_every", "must be a whole number from 0 to 150, got 151"),
        (json!({"strength": 1.5}), "/strength", "must be a number from 0 to 1, got 1.5"),
        (json!({"output_format": "gif"}), "/output_format", "must be one of png, jpeg, webp; got \"gif\""),
        (json!({"output_quality": 101}), "/output_quality", "must be a whole number from 1 to 100, got 101"),
        (json!({"metadata": "note"}), "/metadata", "must be an object of at most 16 strings"),
        (json!({"metadata": {"a": 1}}), "/metadata", "must be an object of at most 16 strings"),
        (json!({"steps": 20}), "/steps", "unknown field; the fields are model, refiner, "),
        (json!({"a/b~c": 1}), "/a~1b~0c", "unknown field"),
        (base64(b"this is a text and no picture"), "/image", picture),
        (base64(&house[..house.len() / 2]), "/image", picture),
        (base64(&png_that_claims(40_000, 40_000)), "/image", "the picture has 40000 × 40000 pixels"),
        (base64(&png_that_claims(64, 64)), "/image", picture),
        (json!({"image": &STANDARD.encode(&house)[1..]}), "/image", "the base64 is damaged"),
        (json!({"image": "not base64!"}), "/image", "the base64 is damaged"),
        (json!({"image": "https://example.com/house.png"}), "/image", picture),
        (json!({"image": ""}), "/image", picture),
        (json!({"image": 7}), "/image", picture),
    ]
}

#[tokio::test]
async fn every_bad_field_is_named_with_what_is_allowed_there() {
    let app = spawn_app().await;
    for (bad, pointer, detail) in bad_fields() {
        let problem = problem(app.post(&request(bad)).await, 422).await;
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!((errors.len(), &errors[0]["pointer"]), (1, &json!(pointer)), "{problem}");
        assert!(errors[0]["detail"].as_str().unwrap().contains(detail), "expected {detail:?} in {problem}");
        assert!(problem.to_string().len() < 2000, "a long answer to {pointer}");
    }
    assert_eq!(app.metric("easel_jobs_accepted_total").await, 0.0);
    app.finish().await;
}

#[tokio::test]
async fn a_strength_that_leaves_no_step_is_answered_with_the_smallest_that_does() {
    let app = spawn_app().await;
    let body = json!({"image": STANDARD.encode(house_png()), "strength": 0.2, "num_inference_steps": 4});
    let refused = problem(app.post(&request(body)).await, 422).await;
    let detail = refused["errors"][0]["detail"].as_str().unwrap();
    assert_eq!(detail, "0.2 of 4 steps leaves no step to run; the smallest strength is 0.25");
    app.finish().await;
}

#[tokio::test]
async fn every_bad_field_is_reported_at_once() {
    let app = spawn_app().await;
    let body = json!({"width": 1, "num_inference_steps": 0, "colour": "red", "image": "?"});
    let problem = problem(app.post(&body).await, 422).await;
    let mut pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/colour", "/image", "/num_inference_steps", "/prompt", "/width"]);
    assert_eq!(problem["code"], "invalid_fields");
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_is_no_json_is_answered_with_the_place_where_it_stops_being_it() {
    let app = spawn_app().await;
    for (body, detail) in [
        ("", "line 1 column 0"),
        ("{\"prompt\": \"a house\"", "line 1 column 20"),
        ("{\"prompt\": \"a\", \"guidance_scale\": NaN}", "JSON has no NaN"),
        ("{\"prompt\": \"a\", \"guidance_scale\": -Infinity}", "JSON has no NaN and no Infinity"),
        ("{\"prompt\": \"a\", \"guidance_scale\": 1e999}", "number out of range"),
        ("prompt=a+house", "line 1 column 1"),
    ] {
        let problem = problem(post_text(&app, body).await, 400).await;
        assert_eq!(problem["code"], "malformed_json");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    let latin1: &[u8] = b"{\"prompt\": \"gr\xFC\xDFe\"}";
    assert_eq!(problem(post_text(&app, latin1).await, 400).await["code"], "malformed_json");
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_is_no_object_is_a_bad_body() {
    let app = spawn_app().await;
    for body in [json!([]), json!("a red house"), json!(null)] {
        let problem = problem(app.post(&body).await, 422).await;
        assert_eq!(problem["errors"][0]["pointer"], "");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().starts_with("must be an object, got"), "{problem}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_body_of_another_type_is_not_supported() {
    let app = spawn_app().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let post = app.request("POST", "/v1/generate").header("content-type", content_type).body(request(json!({})).to_string());
        let problem = problem(app.send(post).await, 415).await;
        assert!(problem["detail"].as_str().unwrap().contains(content_type), "{problem}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_whether_it_says_so_or_not() {
    let app = spawn_app().await;
    let chunk = bytes::Bytes::from(vec![b' '; 1 << 20]);
    let chunks = stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    for body in [reqwest::Body::from(vec![b' '; 100_000_000]), reqwest::Body::wrap_stream(chunks)] {
        let problem = problem(post_text(&app, body).await, 413).await;
        assert_eq!(
            (&problem["code"], &problem["detail"]),
            (&json!("body_too_large"), &json!("the body must have at most 33554432 bytes"))
        );
    }
    assert_eq!(app.paint(&request(json!({}))).await["status"], "succeeded");
    app.finish().await;
}

#[tokio::test]
async fn a_body_as_large_as_is_allowed_is_read() {
    let app = TestApp::with(|config| config.server.max_body_bytes = 1000).await;
    let body = request(json!({})).to_string();
    let padded = |length: usize| format!("{body}{}", " ".repeat(length - body.len()));
    let job = json_of(post_text(&app, padded(1000)).await, 202).await;
    assert_eq!(app.wait(&job).await["status"], "succeeded");
    assert_eq!(problem(post_text(&app, padded(1001)).await, 413).await["code"], "body_too_large");
    app.finish().await;
}
