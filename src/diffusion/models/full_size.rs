//! Each network in full size with random weights against diffusers and transformers: `tests/golden/full_size.py FOLDER`, then
//! `EASEL_FULL_SIZE=FOLDER cargo test --release --lib full_size -- --ignored --nocapture --test-threads 1`.

use std::path::PathBuf;

use tch::Tensor;

use super::{
    clip::{ClipTextClass, ClipTextModel, HiddenLayer},
    tests::{ON_CPU, golden_at},
    time_embedding::AddedCondition,
    unet::{UNet2DConditionModel, UNetCondition},
    unet_prompt::UNetPrompt,
    vae::AutoencoderKL,
};
use crate::diffusion::{deep_cache::Depth, files::ModelFiles, layers::Products};

/// Of the largest value.
const TOLERANCE: f64 = 1e-4;

fn folder(model: &str) -> PathBuf {
    let folder = std::env::var_os("EASEL_FULL_SIZE").expect("EASEL_FULL_SIZE names the folder that full_size.py has made");
    PathBuf::from(folder).join(model)
}

fn compare(what: &str, got: &Tensor, expected: &Tensor) {
    assert_eq!(got.size(), expected.size(), "{what}");
    let largest = expected.abs().max().double_value(&[]);
    let error = (got - expected).abs().max().double_value(&[]) / largest;
    println!("{what}: maximum relative error {error:.2e} (of {largest:.2})");
    assert!(error <= TOLERANCE, "{what} differs by {error} of {largest}");
}

fn compare_all(model: &str) {
    let _no_grad = tch::no_grad_guard();
    let folder = folder(model);
    let golden = golden_at(folder.join("golden.safetensors"));
    let files = ModelFiles::open(&folder).unwrap();
    let first = ("text_encoder", ClipTextClass::Plain);
    let second = ("text_encoder_2", ClipTextClass::WithProjection);
    for (suffix, parts) in [("", first), ("_2", second)] {
        if !files.has(parts.0) {
            continue;
        }
        let ids = Vec::<i64>::try_from(golden(&format!("ids{suffix}"))).unwrap();
        let encoder = ClipTextModel::load(&files, parts, ON_CPU).unwrap();
        let output = encoder.forward(&ids, HiddenLayer { skipped: 1, final_layer_norm: false }).unwrap();
        compare(&format!("{model} text_encoder{suffix}"), &output.hidden, &golden(&format!("hidden{suffix}")));
        if let Some(pooled) = output.pooled {
            compare(&format!("{model} text_embeds{suffix}"), &pooled, &golden(&format!("text_embeds{suffix}")));
        }
    }
    let unet = UNet2DConditionModel::load(&files, ON_CPU).unwrap();
    let added = || AddedCondition { text_embeds: golden("text_embeds"), time_ids: golden("time_ids") };
    let condition = UNetCondition {
        prompt: UNetPrompt::HiddenStates(golden("encoder_hidden_states")),
        added: unet.config().addition_embed_type.map(|_| added()),
        timestep_cond: None,
        products: Products::Exact,
    };
    let timesteps = Tensor::from_slice(&[501_f32]);
    let noise_pred = unet.forward(&golden("latents"), &timesteps, &condition, Depth::Whole).unwrap().model_output;
    compare(&format!("{model} unet"), &noise_pred, &golden("noise_pred"));
    drop(unet);
    let vae = AutoencoderKL::load(&files, "vae", ON_CPU).unwrap();
    compare(&format!("{model} vae"), &vae.decode(&golden("vae_latents"), None).unwrap(), &golden("decoded"));
}

#[test]
#[ignore = "needs the folder that full_size.py makes, and gigabytes of memory"]
fn stable_diffusion_1_5_in_full_size_computes_what_diffusers_computes() {
    compare_all("sd15");
}

#[test]
#[ignore = "needs the folder that full_size.py makes, and gigabytes of memory"]
fn stable_diffusion_2_1_in_full_size_computes_what_diffusers_computes() {
    compare_all("sd21");
}

#[test]
#[ignore = "needs the folder that full_size.py makes, and gigabytes of memory"]
fn stable_diffusion_xl_in_full_size_computes_what_diffusers_computes() {
    compare_all("sdxl");
}
