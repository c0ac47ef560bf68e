//! Pictures on their way through the VAE: in tiles where they are large, in float32 where half precision overflows.

use std::path::Path;

use easel::config::{Config, Dtype, Tiling};
use serde_json::{Value, json};

use crate::support::{TestApp, model_with_a_broken_vae, model_with_an_overflowing_vae, request, sha256s};

const RETRIES: &str = "easel_vae_float32_retries_total";

/// Paints with a model that `make` has made, in this dtype; answers the job and how often the VAE had to repeat something.
async fn paint_with(make: impl Fn(&Path), dtype: Dtype, body: Value) -> (TestApp, Value, f64) {
    let model = tempfile::tempdir().unwrap();
    make(model.path());
    let app = TestApp::with(|config| {
        config.models[0].path = model.path().to_owned();
        config.device.dtype = dtype;
    })
    .await;
    let job = app.submit(&body).await;
    let job = app.wait(&job).await;
    let retries = app.metric(RETRIES).await;
    (app, job, retries)
}

#[tokio::test]
async fn a_decode_that_overflows_is_repeated_in_float32_and_counted() {
    let body = request(json!({"num_images": 2}));
    let (app, job, retries) = paint_with(model_with_an_overflowing_vae, Dtype::Bfloat16, body.clone()).await;
    assert_eq!((&job["status"], retries), (&json!("succeeded"), 2.0), "{job}");
    let picture = image::load_from_memory(&app.picture(&job, 0).await).unwrap().into_rgb8();
    let colours: std::collections::BTreeSet<_> = picture.pixels().map(|pixel| pixel.0).collect();
    assert!(colours.len() > 100, "a picture of {} colours", colours.len());
    app.finish().await;
    let (app, job, retries) = paint_with(model_with_an_overflowing_vae, Dtype::Float32, body).await;
    assert_eq!((&job["status"], retries), (&json!("succeeded"), 0.0), "{job}");
    app.finish().await;
}

#[tokio::test]
async fn a_picture_that_is_not_finite_in_float32_either_fails_its_job() {
    for (dtype, expected) in [(Dtype::Bfloat16, 1.0), (Dtype::Float32, 0.0)] {
        let (app, job, retries) = paint_with(model_with_a_broken_vae, dtype, request(json!({}))).await;
        assert_eq!((&job["status"], &job["error"]["code"], retries), (&json!("failed"), &json!("not_finite"), expected), "{job}");
        assert!(job["error"]["message"].as_str().unwrap().contains("VAE"), "{job}");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_large_picture_is_decoded_in_tiles_where_the_memory_for_it_does_not_suffice() {
    let mut files = Vec::new();
    for (tiling, mib) in [(Tiling::Auto, 0), (Tiling::Never, 1), (Tiling::Auto, 1), (Tiling::Always, 0)] {
        let set = |config: &mut Config| (config.device.vae_tiling, config.device.vae_memory_mib) = (tiling, mib);
        let app = TestApp::with(set).await;
        let large = app.paint(&request(json!({"width": 384}))).await;
        let small = app.paint(&request(json!({"width": 256}))).await;
        let picture = image::load_from_memory(&app.picture(&large, 0).await).unwrap().into_rgb8();
        files.push((sha256s(&large), sha256s(&small), picture));
        app.finish().await;
    }
    let [whole, never, tiled, always] = files.try_into().unwrap();
    assert!(whole.0 == never.0 && tiled.0 == always.0 && whole.0 != tiled.0);
    // What fits into one tile is the same picture in any case.
    assert!([&never, &tiled, &always].iter().all(|other| other.1 == whole.1));
    // Only a seam's width of the picture may differ much.
    let near = whole.2.as_raw().iter().zip(tiled.2.as_raw()).filter(|(one, other)| one.abs_diff(**other) < 40).count();
    assert!(near * 100 > whole.2.as_raw().len() * 90, "{near} of {} values are near", whole.2.as_raw().len());
}
