//! Whole pictures: final latents within 1e-3 of diffusers', and every byte of the picture within 1 of 255.

use std::fs;

use easel::{
    dispatch::ports::{Engine, IntoRgb},
    domain::decode_rgb,
};
use serde_json::Value;

use super::{
    golden,
    painter::{Painter, float32_tensor, largest},
    read_json,
};

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
    let mut painter = Painter::load(case);
    let canvases = painter.paint(case).unwrap();
    let expected = float32_tensor(&fs::read(golden(&format!("{name}.safetensors"))).unwrap(), "latents");
    for (index, canvas) in canvases.iter().enumerate() {
        let (_, values) = canvas.latents().unwrap();
        let expected = &expected[index * values.len()..][..values.len()];
        let worst = largest(values.iter().zip(expected).map(|(a, b)| a - b));
        let of = largest(expected.iter().copied());
        println!("{name}-{index}: latents differ by at most {worst:e} of {of:.2}");
        assert!(worst <= LATENT_TOLERANCE, "{name}-{index}: latents differ by {worst}");
    }
    let frames = painter.engine.finish(&canvases.iter().collect::<Vec<_>>()).unwrap();
    for (index, frame) in frames.into_iter().enumerate() {
        let picture = frame.into_rgb().unwrap();
        let expected = decode_rgb(&fs::read(golden(&format!("{name}-{index}.png"))).unwrap()).unwrap();
        assert_eq!(picture.dimensions(), expected.dimensions(), "{name}-{index}");
        let worst = picture.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= BYTE_TOLERANCE, "{name}-{index}: a byte differs by {worst}");
    }
}
