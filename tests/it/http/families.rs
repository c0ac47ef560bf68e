//! Models of several families behind one door.

use std::{fs, path::Path};

use easel::{config::ModelConfig, domain::decode_rgb};
use image::RgbImage;
use serde_json::{Value, json};

use crate::support::{TestApp, copy_folder, house_url, json_of, request};

/// The small Stable Diffusion XL, its refiner, a distilled model, and the demo model last.
async fn spawn_families() -> TestApp {
    TestApp::with(|config| {
        let demo = std::mem::take(&mut config.models);
        config.models = ["tiny-sdxl", "tiny-sdxl-refiner", "tiny-lcm"].map(model).into();
        config.models.extend(demo);
    })
    .await
}

fn model(name: &str) -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    ModelConfig::new(name, path)
}

/// What a request's picture shows. (The files differ in what they say of their making alone.)
async fn painted(app: &TestApp, changes: Value) -> RgbImage {
    let job = app.paint(&request(changes)).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    let picture = app.get(job["images"][0]["url"].as_str().unwrap()).await;
    decode_rgb(&picture.bytes().await.unwrap()).unwrap()
}

async fn refusal(app: &TestApp, changes: Value) -> Value {
    let problem = json_of(app.post(&request(changes)).await, 422).await;
    problem["errors"].clone()
}

#[tokio::test]
async fn each_model_says_what_it_is_and_what_it_does() {
    let app = spawn_families().await;
    let models = json_of(app.get("/v1/models").await, 200).await["models"].clone();
    assert_eq!((&models[0]["family"], &models[0]["refiners"]), (&json!("sdxl"), &json!(["tiny-sdxl-refiner"])));
    assert_eq!(
        models[0]["unsupported_fields"],
        json!(["aesthetic_score", "negative_aesthetic_score", "image_guidance_scale", "fp8_linears"])
    );
    assert_eq!(models[0]["default_guidance_scale"], 5.0);
    assert_eq!((&models[1]["family"], &models[1]["tasks"]), (&json!("sdxl_refiner"), &json!(["img2img", "inpainting", "refiner"])));
    assert_eq!(
        models[1]["unsupported_fields"],
        json!(["target_size", "negative_target_size", "image_guidance_scale", "fp8_linears"])
    );
    let limit = models[2]["scheduler_limits"].as_array().unwrap().iter().find(|limit| limit["scheduler"] == "lcm").unwrap();
    assert_eq!((&limit["max_steps"], limit["reason"].is_string()), (&json!(50), true));
    let problem = refusal(&app, json!({"model": "tiny-lcm", "scheduler": "lcm", "num_inference_steps": 51})).await;
    assert!(problem[0]["detail"].as_str().unwrap().starts_with("must be at most 50 with lcm"), "{problem}");
    assert_eq!((&models[2]["default_num_inference_steps"], &models[2]["default_guidance_scale"]), (&json!(4), &json!(8.5)));
    app.finish().await;
}

#[tokio::test]
async fn stable_diffusion_xl_paints_from_a_prompt_and_from_a_picture() {
    let app = spawn_families().await;
    let job = app.paint(&request(json!({"original_size": [512, 640]}))).await;
    assert_eq!((&job["status"], &job["request"]["original_size"]), (&json!("succeeded"), &json!([512, 640])));
    assert_eq!(job["request"]["target_size"], json!([64, 64]));
    let [large, own] = [json!({"original_size": [512, 640]}), json!({"original_size": [64, 64]})];
    assert!(painted(&app, large).await != painted(&app, own).await);
    painted(&app, json!({"image": house_url(), "strength": 0.5})).await;
    app.finish().await;
}

#[tokio::test]
async fn no_negative_prompt_is_not_an_empty_one_where_the_folder_asks_for_zeros() {
    let app = spawn_families().await;
    let paint = async |model: &str, negative: Value| painted(&app, json!({"model": model, "negative_prompt": negative})).await;
    assert!(paint("tiny-sdxl", Value::Null).await != paint("tiny-sdxl", json!("")).await);
    assert!(paint("demo", Value::Null).await == paint("demo", json!("")).await);
    app.finish().await;
}

#[tokio::test]
async fn a_refiner_does_the_last_steps() {
    let app = spawn_families().await;
    let plain = painted(&app, json!({"num_inference_steps": 5})).await;
    let body = json!({"num_inference_steps": 5, "refiner": "tiny-sdxl-refiner", "refiner_start": 0.5, "aesthetic_score": 7});
    let job = app.paint(&request(body.clone())).await;
    assert_eq!((&job["request"]["refiner_start"], &job["request"]["aesthetic_score"]), (&json!(0.5), &json!(7.0)));
    assert!(plain != painted(&app, body).await);
    app.finish().await;
}

/// The small Stable Diffusion 1 with another spacing of its timesteps.
fn with_spacing(folder: &Path, spacing: &str) -> ModelConfig {
    let path = folder.join(spacing);
    copy_folder(&model("tiny-sd1").path, &path);
    let file = path.join("scheduler/scheduler_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["timestep_spacing"] = spacing.into();
    fs::write(&file, config.to_string()).unwrap();
    ModelConfig { name: spacing.to_owned(), path, ..model("tiny-sd1") }
}

#[tokio::test]
async fn the_steps_of_two_noise_schedules_are_counted_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let app = TestApp::with(|config| {
        config.models = ["trailing", "leading"].map(|spacing| with_spacing(folder.path(), spacing)).into();
    })
    .await;
    for (first, second, steps) in [("trailing", "leading", 11), ("leading", "trailing", 9)] {
        let changes =
            json!({"model": first, "refiner": second, "refiner_start": 0.45, "scheduler": "dpmpp_2m", "num_inference_steps": 10});
        let events = app.submit_watched(&request(changes)).await.1.all().await;
        assert_eq!(events.last().unwrap().data["status"], "succeeded", "{events:?}");
        let progress = events.iter().rfind(|event| event.name == "progress").unwrap();
        assert_eq!(progress.data["num_inference_steps"], steps, "{first}");
        assert_eq!(progress.data["step"], steps, "{first}");
    }
    app.finish().await;
}

#[tokio::test]
async fn what_a_model_cannot_do_is_refused_by_name() {
    let app = spawn_families().await;
    for (body, pointer, part) in [
        (
            json!({"model": "tiny-sdxl-refiner"}),
            "/image",
            "is required: the model tiny-sdxl-refiner does img2img, inpainting, refiner and no text2img",
        ),
        (
            json!({"model": "demo", "original_size": [64, 64]}),
            "/original_size",
            "has no meaning to the model demo (Stable Diffusion 1)",
        ),
        (
            json!({"model": "demo", "refiner": "tiny-sdxl"}),
            "/refiner",
            "no model that is served can go on with the latents of demo",
        ),
        (
            json!({"refiner": "demo"}),
            "/refiner",
            "must be one of tiny-sdxl-refiner, whose latents are those of tiny-sdxl; got \"demo\"",
        ),
        (json!({"refiner": "tiny-sdxl-refiner", "refiner_start": 1}), "/refiner_start", "above 0 and below 1"),
        (json!({"aesthetic_score": 5}), "/aesthetic_score", "has no meaning to the model tiny-sdxl"),
        (json!({"original_size": [1, 2, 3]}), "/original_size", "must be two whole numbers from 0 to 16384"),
        (json!({"model": "tiny-lcm", "negative_prompt": "ugly"}), "/negative_prompt", "has no meaning to the model tiny-lcm"),
    ] {
        let errors = refusal(&app, body.clone()).await;
        assert_eq!(errors[0]["pointer"], pointer, "{body}: {errors}");
        assert!(errors[0]["detail"].as_str().unwrap().contains(part), "{body}: {errors}");
    }
    app.finish().await;
}
