//! A folder and the single file of the same weights, asked for the same pictures.

use std::path::{Path, PathBuf};

use easel::{
    config::ModelConfig,
    diffusion::{Conversion, convert},
    domain::decode_rgb,
};
use image::RgbImage;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    golden::copy_folder,
    support::{TestApp, house_url, json_of, request},
};

/// Serves a model as the folder `folder` and as the single file `file`. The small inpainting and editing models are a UNet alone, which is
/// laid over a model with the rest.
async fn spawn(layers: &[&str]) -> (TempDir, TestApp) {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, file) = (scratch.path().join("folder"), scratch.path().join("model.safetensors"));
    for name in layers {
        copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name), &folder);
    }
    convert(&folder, &file, &Conversion::default(), &mut |_, _| {}).unwrap();
    let serve = |name: &str, path: PathBuf| ModelConfig::new(name, path);
    let app = TestApp::with(|config| config.models = vec![serve("folder", folder), serve("file", file)]).await;
    (scratch, app)
}

async fn painted(app: &TestApp, model: &str, changes: &Value) -> RgbImage {
    let mut body = request(changes.clone());
    body["model"] = model.into();
    let job = app.paint(&body).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    let picture = app.get(job["images"][0]["url"].as_str().unwrap()).await;
    decode_rgb(&picture.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_single_file_and_a_folder_of_the_same_weights_paint_the_same_picture() {
    let edited = json!({"image": house_url()});
    let masked = json!({"image": house_url(), "mask_image": house_url(), "strength": 0.8});
    for (layers, changes) in [
        (["tiny-sd1"].as_slice(), json!({})),
        (&["tiny-sd2"], json!({"image": house_url(), "strength": 0.5})),
        (&["tiny-bk-sdm"], json!({})),
        (&["tiny-lcm"], json!({})),
        (&["tiny-sdxl"], json!({"original_size": [512, 640]})),
        (&["tiny-sdxl-refiner"], edited.clone()),
        (&["tiny-sd2", "tiny-inpaint"], masked),
        (&["tiny-sd2", "tiny-edit"], edited),
    ] {
        let (_scratch, app) = spawn(layers).await;
        let models = json_of(app.get("/v1/models").await, 200).await["models"].clone();
        let told = |place: usize| {
            let mut told = models[place].clone();
            told["name"] = Value::Null;
            told["refiners"] = Value::Null;
            told
        };
        assert_eq!(told(0), told(1), "{layers:?}");
        assert!(painted(&app, "folder", &changes).await == painted(&app, "file", &changes).await, "{layers:?}");
        app.finish().await;
    }
}
