//! Pictures as PNG, JPEG and WebP files.

use image::RgbImage;
use serde_json::{Value, json};

use crate::support::{TestApp, parameters_of, request, spawn_app};

/// How far two pictures are from each other: the mean over all channels, of 255.
fn distance(one: &RgbImage, other: &RgbImage) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions());
    let differences = one.as_raw().iter().zip(other.as_raw()).map(|(one, other)| f64::from(one.abs_diff(*other)));
    differences.sum::<f64>() / one.as_raw().len() as f64
}

async fn paint(app: &TestApp, changes: Value) -> (Value, Vec<u8>) {
    let job = app.paint(&request(changes)).await;
    let file = app.picture(&job, 0).await;
    (job, file)
}

fn pixels(file: &[u8]) -> RgbImage {
    image::load_from_memory(file).unwrap().into_rgb8()
}

#[tokio::test]
async fn a_picture_is_stored_and_served_in_the_format_that_was_asked_for() {
    let app = spawn_app().await;
    let (_, png) = paint(&app, json!({"height": 72})).await;
    for (format, media_type, extension, magic) in [
        ("jpeg", "image/jpeg", "jpg", &b"\xFF\xD8\xFF"[..]),
        ("webp", "image/webp", "webp", b"RIFF"),
        ("png", "image/png", "png", b"\x89PNG"),
    ] {
        let (job, file) = paint(&app, json!({"height": 72, "output_format": format})).await;
        assert_eq!((&job["request"]["output_format"], &job["request"]["output_quality"]), (&json!(format), &json!(90)));
        assert_eq!((&job["images"][0]["content_type"], &job["images"][0]["bytes"]), (&json!(media_type), &json!(file.len())));
        let id = job["id"].as_str().unwrap();
        let stored = std::fs::read(app.folder.path().join(format!("pictures/pictures/{id}/0.{extension}"))).unwrap();
        assert!(file == stored && file.starts_with(magic), "{format}");
        let answer = app.get(job["images"][0]["url"].as_str().unwrap()).await;
        assert_eq!(answer.headers()["content-type"], media_type);
        assert_eq!(answer.headers()["content-disposition"], format!("inline; filename=\"{id}-0.{extension}\""));
        assert!(distance(&pixels(&file), &pixels(&png)) < 6.0, "{format} shows something else");
        assert!(app.picture(&app.paint(&job["request"]).await, 0).await == file, "equal requests give other {format} files");
    }
    app.finish().await;
}

#[tokio::test]
async fn every_format_says_what_made_the_picture() {
    let app = spawn_app().await;
    let parameters = "a red house, größer 🏠\nNegative prompt: blue\n\
                      Steps: 2, Sampler: ddim, CFG scale: 5, Seed: 7, Size: 64x64, Model: demo, RNG: CPU";
    for (format, quality) in [("png", 90), ("jpeg", 50), ("webp", 50), ("webp", 100)] {
        let body = json!({"prompt": "a red house, größer 🏠", "negative_prompt": "blue", "output_format": format, "output_quality": quality});
        let (_, file) = paint(&app, body).await;
        assert_eq!(parameters_of(&file).as_deref(), Some(parameters), "{format} {quality}");
    }
    app.finish().await;
}

#[tokio::test]
async fn webp_of_quality_100_has_the_pixels_of_the_png() {
    let app = spawn_app().await;
    let (_, png) = paint(&app, json!({})).await;
    let (job, webp) = paint(&app, json!({"output_format": "webp", "output_quality": 100})).await;
    assert_eq!(job["images"][0]["content_type"], "image/webp");
    assert!(pixels(&webp) == pixels(&png));
    let (_, lossy) = paint(&app, json!({"output_format": "webp", "output_quality": 99})).await;
    assert!(pixels(&lossy) != pixels(&png));
    app.finish().await;
}

#[tokio::test]
async fn less_quality_makes_a_smaller_file_that_is_farther_from_the_picture() {
    let app = spawn_app().await;
    let (_, png) = paint(&app, json!({})).await;
    for format in ["jpeg", "webp"] {
        let mut files = Vec::new();
        for quality in [5, 50, 95] {
            let (_, file) = paint(&app, json!({"output_format": format, "output_quality": quality})).await;
            files.push((file.len(), distance(&pixels(&file), &pixels(&png))));
        }
        assert!(files.is_sorted_by(|worse, better| worse.0 < better.0 && worse.1 > better.1), "{format}: {files:?}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_quality_that_has_no_effect_is_named_in_a_warning() {
    let app = spawn_app().await;
    let (plain, png) = paint(&app, json!({})).await;
    let (warned, same) = paint(&app, json!({"output_quality": 10})).await;
    assert_eq!(
        (&plain["warnings"], &warned["warnings"][0]),
        (&json!([]), &json!("output_quality has no effect on PNG, which loses nothing"))
    );
    assert!(png == same);
    app.finish().await;
}
