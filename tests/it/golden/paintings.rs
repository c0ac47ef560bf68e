//! Whole pictures: final latents within 1e-3 of diffusers', and every byte of the picture within 1 of 255.

use std::{fs, path::Path};

use easel::{
    diffusion::{EngineSettings, ModelFolder, Precision, ResidencySettings, StableDiffusion, VaeTiling, describe_models},
    dispatch::ports::{CanvasState, Engine, IntoRgb, PaintOrder},
    domain::{Submission, decode_rgb},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::{folders::copy_folder, golden, read_json};

const LATENT_TOLERANCE: f32 = 1e-3;
const BYTE_TOLERANCE: u8 = 1;

#[test]
fn the_demo_model_paints_what_diffusers_paints() {
    paint_all(|case| case["model"] == "demo" && case["scheduler_config"].is_null());
}

#[test]
fn a_scheduler_config_with_missing_keys_means_what_diffusers_takes_it_to_mean() {
    paint_all(|case| !case["scheduler_config"].is_null());
}

#[test]
fn other_architectures_paint_what_diffusers_paints() {
    paint_all(|case| case["model"] != "demo" && case["scheduler_config"].is_null());
}

#[test]
fn latent_diffusion_and_models_without_text_paint_what_diffusers_paints() {
    paint_of("latent-cases.json", |_| true);
}

#[test]
fn masks_on_ordinary_models_paint_what_diffusers_paints() {
    paint_of("inpainting.json", |case| case["base"].is_null());
}

#[test]
fn inpainting_models_paint_what_diffusers_paints() {
    paint_of("inpainting.json", |case| case["model"] == "tiny-inpaint");
}

#[test]
fn instruct_pix2pix_models_paint_what_diffusers_paints() {
    paint_of("inpainting.json", |case| case["model"] == "tiny-edit");
}

#[test]
fn families_with_more_than_a_prompt_paint_what_diffusers_paints() {
    paint_of("families.json", |case| case["request"]["refiner"].is_null());
}

#[test]
fn a_refiner_goes_on_where_the_first_model_stops_as_in_diffusers() {
    paint_of("families.json", |case| !case["request"]["refiner"].is_null());
}

fn paint_all(wanted: impl Fn(&Value) -> bool) {
    paint_of("cases.json", wanted);
}

fn paint_of(file: &str, wanted: impl Fn(&Value) -> bool) {
    let cases = read_json(file);
    let cases: Vec<&Value> = cases["cases"].as_array().unwrap().iter().filter(|case| wanted(case)).collect();
    assert!(!cases.is_empty());
    for case in cases {
        paint(case);
    }
}

fn paint(case: &Value) {
    let name = case["name"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut served = vec![model_folder(case, folder.path())];
    served.extend(case["request"]["refiner"].as_str().map(|name| ModelFolder::new(name, golden(name))));
    let models = describe_models(&served).unwrap();
    let settings = EngineSettings {
        device: "cpu".to_owned(),
        dtype: Precision::Float32,
        batch_invariant: Some(true),
        threads: 0,
        vae_tiling: VaeTiling::Auto,
        vae_memory: None,
        models: served,
        residency: ResidencySettings::default(),
    };
    let mut engine = StableDiffusion::load(&settings).unwrap();
    let submission = Submission::parse(request_body(case), &models, 0).unwrap();
    let images = submission.request.num_images;
    let order = PaintOrder::of(submission).unwrap();
    let mut canvases = engine.begin(&order, 0..images).unwrap().canvases;
    while !canvases[0].is_done() {
        let mut batch: Vec<_> = canvases.iter_mut().collect();
        engine.step(&mut batch).unwrap().into_iter().for_each(|answer| answer.unwrap());
    }
    let expected = latents(name);
    for (index, canvas) in canvases.iter().enumerate() {
        let (_, values) = canvas.latents().unwrap();
        let expected = &expected[index * values.len()..][..values.len()];
        let worst = values.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
        println!("{name}-{index}: latents differ by at most {worst:e} of {largest:.2}");
        assert!(worst <= LATENT_TOLERANCE, "{name}-{index}: latents differ by {worst}");
    }
    let frames = engine.finish(&canvases.iter().collect::<Vec<_>>()).unwrap();
    for (index, frame) in frames.into_iter().enumerate() {
        let picture = frame.into_rgb().unwrap();
        let expected = decode_rgb(&fs::read(golden(&format!("{name}-{index}.png"))).unwrap()).unwrap();
        assert_eq!(picture.dimensions(), expected.dimensions(), "{name}-{index}");
        let worst = picture.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= BYTE_TOLERANCE, "{name}-{index}: a byte differs by {worst}");
    }
}

/// The case's model; laid over another, or with its own scheduler config, if the case says so.
fn model_folder(case: &Value, scratch: &Path) -> ModelFolder {
    let name = case["model"].as_str().unwrap();
    let source = match name {
        "demo" => Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"),
        other => golden(other),
    };
    let path = if let Some(base) = case["base"].as_str() {
        copy_folder(&golden(base), scratch);
        copy_folder(&source, scratch);
        scratch.to_owned()
    } else if case["scheduler_config"].is_null() {
        source
    } else {
        copy_folder(&source, scratch);
        fs::write(scratch.join("scheduler/scheduler_config.json"), case["scheduler_config"].to_string()).unwrap();
        scratch.to_owned()
    };
    ModelFolder::new(name, path)
}

fn request_body(case: &Value) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut body = case["request"].clone();
    if let Some(file) = case["image_file"].as_str() {
        body["image"] = json!(STANDARD.encode(fs::read(golden(file)).unwrap()));
    }
    if let Some(file) = case["mask_file"].as_str() {
        body["mask_image"] = json!(STANDARD.encode(fs::read(golden(file)).unwrap()));
    }
    body
}

fn latents(name: &str) -> Vec<f32> {
    let file = fs::read(golden(&format!("{name}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let data = tensors.tensor("latents").unwrap().data().to_vec();
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}
