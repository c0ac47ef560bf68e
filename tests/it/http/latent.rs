//! Models of latent diffusion's paper, and models that take no text.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use easel::domain::{decode_luma, decode_rgb};
use serde_json::{Value, json};

use crate::support::{TestApp, house_png, house_url, json_of};

/// A server of the small models with random weights, `tiny-ldm` first.
async fn app() -> TestApp {
    TestApp::with(|config| {
        let entry = config.models[0].clone();
        let named = |name: &str| {
            let mut entry = entry.clone();
            entry.name = name.to_owned();
            entry.path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
            entry
        };
        config.models = ["tiny-ldm", "tiny-ddpm", "tiny-ddim", "tiny-ldm-faces"].map(named).into();
    })
    .await
}

async fn refusal(app: &TestApp, body: Value) -> Vec<(String, String)> {
    let problem = json_of(app.post(&body).await, 422).await;
    let text = |error: &Value, key: &str| error[key].as_str().unwrap().to_owned();
    problem["errors"].as_array().unwrap().iter().map(|error| (text(error, "pointer"), text(error, "detail"))).collect()
}

#[tokio::test]
async fn latent_diffusion_paints_what_its_text_says() {
    let app = app().await;
    let body = |prompt: &str| json!({"prompt": prompt, "num_inference_steps": 2, "seed": 3, "width": 64, "height": 64});
    let (house, cat) = (app.paint(&body("a red house")).await, app.paint(&body("the blue cat")).await);
    assert_eq!(house["request"]["model"], "tiny-ldm");
    assert_ne!(house["images"][0]["sha256"], cat["images"][0]["sha256"]);
    let long = app.paint(&body(&"a star in the sky ".repeat(20))).await;
    assert!(long["warnings"][0].as_str().unwrap().contains("longer than 77 tokens"), "{long}");
    app.finish().await;
}

#[tokio::test]
async fn a_model_without_text_paints_from_noise_alone_in_its_own_size() {
    let app = app().await;
    for (model, width, height) in [("tiny-ddpm", 32, 32), ("tiny-ddim", 32, 24), ("tiny-ldm-faces", 64, 64)] {
        let job = app.paint(&json!({"model": model, "num_inference_steps": 2, "seed": 3, "num_images": 2})).await;
        assert_eq!((&job["request"]["prompt"], &job["request"]["guidance_scale"]), (&json!(""), &json!(1.0)), "{model}");
        assert_ne!(job["images"][0]["sha256"], job["images"][1]["sha256"], "{model}");
        let file = app.get(job["images"][0]["url"].as_str().unwrap()).await.bytes().await.unwrap();
        let picture = decode_rgb(&file).unwrap();
        assert_eq!(picture.dimensions(), (width, height), "{model}");
        let is_grey = picture.pixels().all(|pixel| pixel.0[0] == pixel.0[1] && pixel.0[1] == pixel.0[2]);
        assert_eq!(is_grey, model == "tiny-ddim", "{model}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_model_without_text_starts_from_a_picture_and_goes_as_far_from_it_as_asked() {
    let app = app().await;
    let body = |strength: f64| {
        json!({"model": "tiny-ddpm", "image": house_url(), "width": 32, "height": 32, "num_inference_steps": 10,
        "strength": strength, "seed": 1})
    };
    let (near, far) = (app.paint(&body(0.1)).await, app.paint(&body(1.0)).await);
    assert_eq!(near["request"]["strength"], 0.1);
    assert_ne!(near["images"][0]["sha256"], far["images"][0]["sha256"]);
    app.finish().await;
}

#[tokio::test]
async fn models_without_text_paint_under_a_mask_and_keep_the_rest_to_the_last_byte() {
    let app = app().await;
    let file = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mask-disc.png")).unwrap();
    let (house, mask) = (decode_rgb(&house_png()).unwrap(), decode_luma(&file).unwrap());
    for model in ["tiny-ddpm", "tiny-ldm-faces"] {
        let body = json!({"model": model, "image": house_url(), "mask_image": STANDARD.encode(&file), "width": 128, "height": 128,
            "num_inference_steps": 2, "seed": 3});
        let picture = decode_rgb(&app.picture(&app.paint(&body).await, 0).await).unwrap();
        let is_kept = |(x, y): (u32, u32)| mask.get_pixel(x, y).0 == [0];
        let is_same = |(x, y): (u32, u32)| house.get_pixel(x, y) == picture.get_pixel(x, y);
        let mut places = (0..128).flat_map(|y| (0..128).map(move |x| (x, y)));
        assert!(places.clone().filter(|&place| is_kept(place)).all(is_same), "{model}");
        assert!(places.any(|place| !is_same(place)), "{model}: nothing was painted");
    }
    app.finish().await;
}

#[tokio::test]
async fn what_a_model_without_text_cannot_do_is_refused_all_at_once_and_said() {
    let app = app().await;
    let body = json!({"model": "tiny-ddpm", "prompt": "a house", "negative_prompt": "a tree", "guidance_scale": 5, "width": 34});
    let errors = refusal(&app, body).await;
    for field in ["/prompt", "/negative_prompt", "/guidance_scale"] {
        let detail = &errors.iter().find(|(pointer, _)| pointer == field).unwrap().1;
        assert!(detail.contains("tiny-ddpm") && detail.contains("takes no text"), "{field}: {detail}");
    }
    assert!(errors.contains(&("/width".to_owned(), "must be a multiple of 4 from 32 to 2048, got 34".to_owned())), "{errors:?}");
    assert_eq!(errors.len(), 4, "{errors:?}");
    // Some clients send every default of the contract.
    let empty = json!({"model": "tiny-ddpm", "prompt": "", "negative_prompt": null, "prompt_syntax": "plain", "clip_skip": null,
        "guidance_rescale": 0, "guidance_interval": [0, 1], "cache_interval": 1, "fp8_linears": false, "num_inference_steps": 1});
    app.paint(&empty).await;
    let errors = refusal(&app, json!({"model": "tiny-ddpm", "cache_interval": 2})).await;
    assert_eq!(
        errors,
        [("/cache_interval".to_owned(), "has no meaning to the model tiny-ddpm (unconditional: it takes no text)".to_owned())]
    );
    assert_eq!(refusal(&app, json!({"model": "tiny-ldm"})).await, [("/prompt".to_owned(), "is required".to_owned())]);
    app.finish().await;
}

#[tokio::test]
async fn the_list_of_models_says_what_each_of_these_can_do() {
    let app = app().await;
    let models = json_of(app.get("/v1/models").await, 200).await;
    let of = |name: &str| models["models"].as_array().unwrap().iter().find(|model| model["name"] == name).unwrap().clone();
    assert_eq!((&of("tiny-ldm")["family"], &of("tiny-ldm")["default_guidance_scale"]), (&json!("ldm"), &json!(5.0)));
    let ddpm = of("tiny-ddpm");
    assert_eq!((&ddpm["family"], &ddpm["tasks"]), (&json!("unconditional"), &json!(["unconditional", "img2img", "inpainting"])));
    assert_eq!((&ddpm["default_width"], &ddpm["min_size"], &ddpm["size_multiple"]), (&json!(32), &json!(32), &json!(4)));
    for field in ["prompt", "negative_prompt", "guidance_scale"] {
        assert!(ddpm["unsupported_fields"].as_array().unwrap().contains(&json!(field)), "{field}");
    }
    // The VQ model's factor of 4, times the grid of a UNet of two levels.
    assert_eq!(of("tiny-ldm-faces")["size_multiple"], 8);
    app.finish().await;
}

#[tokio::test]
async fn a_preview_of_a_model_of_pixels_is_its_picture_made_small() {
    let app = app().await;
    let body = json!({"model": "tiny-ddpm", "width": 256, "height": 128, "num_inference_steps": 20, "seed": 3, "preview_every": 1});
    let (job, mut events) = app.submit_watched(&body).await;
    let preview = events.until("preview").await;
    let file = STANDARD.decode(preview.data["b64"].as_str().unwrap()).unwrap();
    assert_eq!(decode_rgb(&file).unwrap().dimensions(), (64, 32));
    app.wait(&job).await;
    app.finish().await;
}
