//! Each network by itself against diffusers and transformers (`tests/golden/maker/layers.py`), so that a wrong picture has an address.

use std::{
    fs,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

use super::{
    clip::{ClipTextClass, ClipTextModel, HiddenLayer},
    config::VaeConfig,
    tiling::TileSize,
    unet::{UNet2DConditionModel, UNetCondition},
    unet_prompt::UNetPrompt,
    vae::AutoencoderKL,
};
use crate::diffusion::{deep_cache::Depth, device::Placement, files::ModelFiles, layers::Products};

const TOLERANCE: f64 = 1e-4;
pub(super) const ON_CPU: Placement = Placement { device: Device::Cpu, kind: Kind::Float, batch_invariant: true };

fn demo() -> ModelFiles {
    ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).unwrap()
}

pub(super) fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The tensors of a golden file by name.
pub(super) fn golden(file: &str) -> impl Fn(&str) -> Tensor {
    golden_at(golden_path(file))
}

/// The tensors of a safetensors file by name.
pub(super) fn golden_at(file: PathBuf) -> impl Fn(&str) -> Tensor {
    let bytes = fs::read(file).unwrap();
    move |name| {
        let view = SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap();
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        let kind = if view.dtype() == safetensors::Dtype::I64 { Kind::Int64 } else { Kind::Float };
        Tensor::f_from_data_size(view.data(), &shape, kind).unwrap()
    }
}

pub(super) fn assert_close(name: &str, got: &Tensor, expected: &Tensor) {
    assert_within(name, got, expected, TOLERANCE);
}

fn assert_within(name: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), expected.size(), "{name}");
    let worst = (got - expected).abs().max().double_value(&[]);
    assert!(worst <= tolerance, "{name} differs by {worst}");
}

#[test]
fn the_text_encoders_hidden_states_are_those_of_transformers() {
    let golden = golden("text.safetensors");
    let parts = ("text_encoder", ClipTextClass::Plain);
    let model = ClipTextModel::load(&demo(), parts, ON_CPU).unwrap();
    let last = HiddenLayer { skipped: 0, final_layer_norm: true };
    for case in ["0", "1"] {
        let ids = Vec::<i64>::try_from(golden(&format!("ids.{case}"))).unwrap();
        let expected = golden(&format!("last_hidden_state.{case}"));
        let hidden = model.forward(&ids, last).unwrap().hidden.squeeze_dim(0).narrow(0, 0, expected.size()[0]);
        assert_close(case, &hidden, &expected);
    }
}

#[test]
fn every_hidden_state_and_the_pooled_text_are_those_of_transformers() {
    let golden = golden("text-families.safetensors");
    let files = ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-sdxl")).unwrap();
    let first = ("text_encoder", ClipTextClass::Plain);
    let second = ("text_encoder_2", ClipTextClass::WithProjection);
    for (suffix, parts, states) in [("", first, 3), ("_2", second, 4)] {
        let (class, model) = (parts.1, ClipTextModel::load(&files, parts, ON_CPU).unwrap());
        let ids = Vec::<i64>::try_from(golden(&format!("ids{suffix}"))).unwrap();
        for skipped in 0..states {
            for (name, final_layer_norm) in [("hidden", false), ("normed", true)] {
                let name = format!("{name}{suffix}.{skipped}");
                let output = model.forward(&ids, HiddenLayer { skipped, final_layer_norm }).unwrap();
                assert_within(&name, &output.hidden.squeeze_dim(0).narrow(0, 0, 8), &golden(&name), 1e-5);
                assert_eq!(output.pooled.is_some(), class == ClipTextClass::WithProjection);
                if let Some(pooled) = output.pooled {
                    assert_within("text_embeds", &pooled, &golden("text_embeds_2"), 1e-5);
                }
            }
        }
    }
}

#[test]
fn the_unet_predicts_the_noise_that_diffusers_predicts() {
    let (golden, model) = (golden("unet.safetensors"), UNet2DConditionModel::load(&demo(), ON_CPU).unwrap());
    for size in ["16x16", "13x17"] {
        for timestep in ["999", "501.5", "0"] {
            let timesteps = Tensor::from_slice(&[timestep.parse::<f32>().unwrap()]);
            let prompt = UNetPrompt::HiddenStates(golden("encoder_hidden_states"));
            let condition = UNetCondition { prompt, added: None, timestep_cond: None, products: Products::Exact };
            let noise_pred =
                model.forward(&golden(&format!("latents.{size}")), &timesteps, &condition, Depth::Whole).unwrap().model_output;
            assert_close(&format!("{size} at {timestep}"), &noise_pred, &golden(&format!("noise_pred.{size}.{timestep}")));
        }
    }
}

/// How far a network in bfloat16 may be from itself in float32: the root mean square of the difference, of that of the values. Weights and
/// every intermediate value are rounded to 8 bits.
const BFLOAT16_TOLERANCE: f64 = 0.02;

fn assert_near_in_bfloat16(what: &str, network: impl Fn(Placement) -> Tensor) {
    let [exact, rounded] = [Kind::Float, Kind::BFloat16].map(|kind| network(Placement { kind, ..ON_CPU }).to_kind(Kind::Double));
    let size = |tensor: &Tensor| tensor.square().mean(Kind::Double).sqrt().double_value(&[]);
    let error = size(&(&rounded - &exact)) / size(&exact);
    assert!(error <= BFLOAT16_TOLERANCE, "{what} differs by {error}");
    assert!(error > 0.0, "{what} is not computed in bfloat16");
}

#[test]
fn in_bfloat16_the_networks_are_near_what_they_are_in_float32() {
    let _no_grad = tch::no_grad_guard();
    let golden = golden("unet.safetensors");
    // Large enough for the attention kernel to be called.
    let latents = golden("latents.16x16").repeat([2, 1, 3, 3]);
    assert_near_in_bfloat16("the noise", |placement| {
        let model = UNet2DConditionModel::load(&demo(), placement).unwrap();
        let states = golden("encoder_hidden_states").repeat([2, 1, 1]).to_kind(placement.kind);
        let condition =
            UNetCondition { prompt: UNetPrompt::HiddenStates(states), added: None, timestep_cond: None, products: Products::Exact };
        model
            .forward(&latents.to_kind(placement.kind), &Tensor::from_slice(&[999_f32, 501.0]), &condition, Depth::Whole)
            .unwrap()
            .model_output
    });
    let latents = latents.narrow(0, 0, 1).narrow(2, 0, 24);
    assert_near_in_bfloat16("the picture", |placement| {
        AutoencoderKL::load(&demo(), "vae", placement).unwrap().decode(&latents, None).unwrap()
    });
}

#[test]
fn the_vae_encodes_and_decodes_as_that_of_diffusers() {
    assert_vae("", None);
}

#[test]
fn the_vae_in_tiles_encodes_and_decodes_as_that_of_diffusers() {
    assert_vae("tiled.", Some(TileSize::of_pixels(32, 8)));
}

/// Holds what the VAE makes of the golden's picture and latents to the golden's tensors of this prefix.
fn assert_vae(prefix: &str, tiles: Option<TileSize>) {
    let (golden, model) = (golden("vae.safetensors"), AutoencoderKL::load(&demo(), "vae", ON_CPU).unwrap());
    let moments = golden(&format!("{prefix}moments"));
    let (mean, logvar) = (moments.narrow(1, 0, 4), moments.narrow(1, 4, 4).clamp(-30.0, 20.0));
    let posterior = model.encode(&golden("image"), tiles).unwrap();
    let (zeros, ones) = (mean.zeros_like(), mean.ones_like());
    let scaling_factor = VaeConfig::read(&demo(), "vae").unwrap().scaling_factor;
    let scaled = |latents: Tensor| latents * scaling_factor;
    assert_close("the mean", &posterior.sample(&zeros).unwrap(), &scaled(mean.shallow_clone()));
    assert_close("one standard deviation", &posterior.sample(&ones).unwrap(), &scaled(mean + (logvar * 0.5).exp()));
    let decoded = model.decode(&scaled(golden("latents")), tiles).unwrap();
    assert_close("the picture", &decoded, &golden(&format!("{prefix}decoded")));
}
