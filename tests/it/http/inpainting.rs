//! Pictures of which a mask has only a part painted anew.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use easel::domain::{decode_rgb, sha256_hex};
use image::{
    ExtendedColorType, GrayImage, ImageEncoder, Luma, RgbImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder},
};
use serde_json::{Value, json};

use crate::support::{TestApp, house_png, house_url, json_of, parameters_of, request, spawn_app};

/// White on the right of column 70.
fn mask() -> GrayImage {
    GrayImage::from_fn(128, 128, |x, _| Luma([if x < 70 { 0 } else { 255 }]))
}

fn write<E: ImageEncoder>(encoder: E, mask: &GrayImage) {
    encoder.write_image(mask.as_raw(), mask.width(), mask.height(), ExtendedColorType::L8).unwrap();
}

fn png_of(mask: &GrayImage) -> Vec<u8> {
    let mut file = Vec::new();
    write(PngEncoder::new(&mut file), mask);
    file
}

/// The house, of which the mask's white is painted anew; `changes` is laid over it.
fn inpainting(changes: Value) -> Value {
    let mut body =
        request(json!({"width": 128, "height": 128, "image": house_url(), "mask_image": STANDARD.encode(png_of(&mask()))}));
    for (field, value) in changes.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

fn input(app: &TestApp, file: &[u8]) -> PathBuf {
    app.folder.path().join("pictures/inputs").join(sha256_hex(file))
}

async fn painted(app: &TestApp, body: &Value) -> RgbImage {
    let job = app.paint(body).await;
    decode_rgb(&app.picture(&job, 0).await).unwrap()
}

/// The columns in which two pictures differ.
fn changed_columns(one: &RgbImage, other: &RgbImage) -> Vec<u32> {
    (0..one.width()).filter(|&x| (0..one.height()).any(|y| one.get_pixel(x, y) != other.get_pixel(x, y))).collect()
}

#[tokio::test]
async fn what_is_not_masked_is_the_pictures_own_to_the_last_byte() {
    let app = spawn_app().await;
    let house = decode_rgb(&house_png()).unwrap();
    for changes in [json!({}), json!({"strength": 0.6}), json!({"guidance_scale": 1, "scheduler": "euler", "seed": 8})] {
        let picture = painted(&app, &inpainting(changes.clone())).await;
        let changed = changed_columns(&house, &picture);
        assert!(changed.iter().all(|&x| x >= 70), "{changes}: columns {changed:?} were painted");
        assert!(changed.len() > 50, "{changes}: only columns {changed:?} were painted");
    }
    let blurred = changed_columns(&house, &painted(&app, &inpainting(json!({"mask_blur": 4}))).await);
    assert!(blurred[0] < 70 && blurred[0] > 70 - 4 * 4, "a blur of 4 pixels reaches to column {}", blurred[0]);
    app.finish().await;
}

#[tokio::test]
async fn a_mask_may_have_another_size_and_any_format() {
    let app = spawn_app().await;
    let house = decode_rgb(&house_png()).unwrap();
    let small = GrayImage::from_fn(37, 11, |x, _| Luma([if x < 20 { 0 } else { 255 }]));
    let (mut jpeg, mut webp) = (Vec::new(), Vec::new());
    write(JpegEncoder::new_with_quality(&mut jpeg, 100), &small);
    write(WebPEncoder::new_lossless(&mut webp), &small);
    for mask in [png_of(&small), jpeg, webp] {
        let picture = painted(&app, &inpainting(json!({"mask_image": STANDARD.encode(&mask)}))).await;
        let changed = changed_columns(&house, &picture);
        // 20 of 37 columns are 69 of 128; Lanczos' filter reaches over three of the mask's.
        assert!(changed[0] > 69 - 11 && changed.len() > 50, "{changed:?}");
    }
    app.finish().await;
}

#[tokio::test]
async fn the_job_tells_its_mask_and_so_does_the_picture() {
    let app = spawn_app().await;
    let job = app.paint(&inpainting(json!({"mask_blur": 3}))).await;
    let sha256 = sha256_hex(&png_of(&mask()));
    let reference = json!({"sha256": sha256, "width": 128, "height": 128, "content_type": "image/png"});
    let told = &job["request"];
    assert_eq!((&told["mask_image"], &told["mask_blur"], &told["strength"]), (&reference, &json!(3), &json!(1.0)));
    let parameters = parameters_of(&app.picture(&job, 0).await).unwrap();
    assert!(parameters.contains(&format!("Mask blur: 3, Mask image: {sha256}")), "{parameters}");
    app.finish().await;
}

#[tokio::test]
async fn a_bad_mask_is_refused_with_the_reason_and_nothing_is_kept_of_it() {
    let app = spawn_app().await;
    let mut alone = inpainting(json!({}));
    alone.as_object_mut().unwrap().remove("image");
    for (body, pointer, detail) in [
        (alone, "/mask_image", "needs an image"),
        (inpainting(json!({"mask_image": STANDARD.encode("no picture")})), "/mask_image", "must be a PNG, JPEG or WebP picture"),
        (inpainting(json!({"mask_image": 7})), "/mask_image", "must be a PNG, JPEG or WebP picture"),
        (inpainting(json!({"mask_image": STANDARD.encode(png_of(&GrayImage::new(4097, 1)))})), "/mask_image", "4097 × 1 pixels"),
        (inpainting(json!({"mask_blur": 65})), "/mask_blur", "must be a whole number from 0 to 64, got 65"),
        (inpainting(json!({"image_guidance_scale": 1.5})), "/image_guidance_scale", "only instruct-pix2pix models"),
    ] {
        let problem = json_of(app.post(&body).await, 422).await;
        assert_eq!(
            (problem["errors"].as_array().unwrap().len(), &problem["errors"][0]["pointer"]),
            (1, &json!(pointer)),
            "{problem}"
        );
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    assert!(!app.folder.path().join("pictures/inputs").exists());
    app.finish().await;
}

#[tokio::test]
async fn a_mask_outlives_a_restart_and_goes_with_its_last_job() {
    let first = spawn_app().await;
    let expected = first.paint(&inpainting(json!({}))).await["images"][0]["sha256"].clone();
    first.request("POST", "/v1/queue/pause").send().await.unwrap();
    let waiting = first.submit(&inpainting(json!({}))).await;
    let (folder, stopped) = first.stop().await;
    stopped.unwrap();

    let app = TestApp::over(&folder).await;
    app.request("POST", "/v1/queue/resume").send().await.unwrap();
    let job = app.wait(&waiting).await;
    assert_eq!((&job["status"], &job["images"][0]["sha256"]), (&json!("succeeded"), &expected));
    let files = [house_png(), png_of(&mask())].map(|file| folder.path().join("pictures/inputs").join(sha256_hex(&file)));
    let jobs = json_of(app.get("/v1/jobs").await, 200).await["jobs"].as_array().unwrap().clone();
    assert_eq!(jobs.len(), 2);
    for job in jobs {
        assert!(files.iter().all(|file| file.is_file()), "a job still needs them");
        assert_eq!(app.request("DELETE", job["urls"]["self"].as_str().unwrap()).send().await.unwrap().status(), 204);
    }
    assert!(!files.iter().any(|file| file.exists()), "nobody needs them any more");
    app.stop().await.1.unwrap();
}

#[tokio::test]
async fn a_job_whose_mask_has_gone_fails_and_says_so() {
    let (app, go) = TestApp::loading(|_| {}).await;
    let job = app.submit(&inpainting(json!({}))).await;
    std::fs::remove_file(input(&app, &png_of(&mask()))).unwrap();
    go.send(()).unwrap();
    let job = app.wait(&job).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("input_missing")));
    assert!(job["error"]["message"].as_str().unwrap().starts_with("the mask cannot be read"), "{job}");
    app.finish().await;
}

#[tokio::test]
async fn a_cancelled_job_is_painted_with_its_mask_by_its_retry() {
    let (app, mut gate) = TestApp::gated(|_| {}).await;
    let job = app.submit(&inpainting(json!({}))).await;
    gate.arrival().await;
    app.cancel(&job).await;
    drop(gate);
    app.wait(&job).await;
    let retry = app.request("POST", &format!("{}/retry", job["urls"]["self"].as_str().unwrap()));
    let again = app.wait(&json_of(app.send(retry).await, 202).await).await;
    assert_eq!(app.picture(&again, 0).await, app.picture(&app.paint(&inpainting(json!({}))).await, 0).await);
    app.finish().await;
}
