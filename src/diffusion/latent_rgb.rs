//! A cheap picture of latents: each cell's channels, weighed, are its colour. For previews.

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::{error::LoadError, files::ModelFiles, layers::Result};

/// The file beside `model_index.json` that holds a model's factors; `models/fit_latent_rgb.py` makes it.
const FILE: &str = "latent_rgb.json";
/// Factors of autoencoders whose `scaling_factor` tells them, for folders that have no file: those of Stable Diffusion 1 and 2, and of SDXL,
/// as the community fitted them (ComfyUI's `latent_formats.py`).
const KNOWN: [(f64, &str); 2] = [
    (
        0.18215,
        r#"{"factors": [[0.3512, 0.2297, 0.3227], [0.3250, 0.4974, 0.2350], [-0.2829, 0.1762, 0.2721], [-0.2120, -0.2616, -0.7177]],
            "bias": [0.0, 0.0, 0.0]}"#,
    ),
    (
        0.13025,
        r#"{"factors": [[0.3651, 0.4232, 0.4341], [-0.2533, -0.0042, 0.1068], [0.1076, 0.1111, -0.0362], [-0.3165, -0.2492, -0.2188]],
            "bias": [0.1084, -0.0175, -0.0011]}"#,
    ),
];

/// The linear map from a latent cell to a colour in −1..1.
#[derive(Debug)]
pub(super) struct LatentRgb {
    factors: Tensor, // [C, 3]
    bias: Tensor,    // [3]
}

#[derive(Deserialize)]
struct Factors {
    factors: Vec<[f32; 3]>,
    bias: [f32; 3],
}

impl LatentRgb {
    /// Reads the model's factors, or takes those of a known autoencoder; `None` when there are neither.
    pub(super) fn load(
        files: &ModelFiles,
        scaling_factor: f64,
        channels: i64,
        device: Device,
    ) -> std::result::Result<Option<Self>, LoadError> {
        let known = || KNOWN.iter().find(|(known, _)| (known - scaling_factor).abs() < 1e-6 && channels == 4);
        let own = files.optional_file(FILE)?;
        let Some(text) = own.or_else(|| known().map(|(_, text)| (*text).to_owned())) else { return Ok(None) };
        let invalid = |problem: String| files.invalid_file(FILE, problem);
        let parsed: Factors = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if parsed.factors.len() as i64 != channels {
            return Err(invalid(format!("{} factors for {channels} latent channels", parsed.factors.len())));
        }
        let factors = Tensor::f_from_slice(parsed.factors.as_flattened())?.f_reshape([channels, 3])?.f_to_device(device)?;
        Ok(Some(Self { factors, bias: Tensor::f_from_slice(&parsed.bias)?.f_to_device(device)? }))
    }

    /// latents `[1, C, h, w]` in the UNet's scale → `[3, h, w]` in about −1..1
    pub(super) fn apply(&self, latents: &Tensor) -> Result<Tensor> {
        let cells = latents.f_squeeze_dim(0)?.f_permute([1, 2, 0])?.f_to_kind(Kind::Float)?; // [h, w, C]
        cells.f_matmul(&self.factors)?.f_add(&self.bias)?.f_permute([2, 0, 1])
    }
}
