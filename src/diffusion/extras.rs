//! What some models' UNets are told besides timestep and prompt: Stable Diffusion XL's sizes, a distilled model's guidance scale.

use tch::{Kind, Tensor};

use super::{
    device::Placement,
    layers::Result,
    models::{config::UNetConfig, time_embedding::guidance_scale_embedding},
    transfer::upload,
};
use crate::domain::{GenerationRequest, ModelInfo, SizeConditioning};

/// What a request tells a model's UNet besides its prompts.
#[derive(Debug)]
pub(super) struct Extras {
    pub(super) time_ids: Option<TimeIds>,
    /// `[1, time_cond_proj_dim]`
    pub(super) timestep_cond: Option<Tensor>,
}

/// Stable Diffusion XL's micro-conditioning (Podell et al., 2023, section 2.2), `[1, 6]` or the refiner's `[1, 5]`, float32.
#[derive(Debug)]
pub(super) struct TimeIds {
    pub(super) positive: Tensor,
    pub(super) negative: Tensor,
}

impl Extras {
    /// For a request that `info`'s model paints, or takes over as its refiner.
    pub(super) fn of(request: &GenerationRequest, info: &ModelInfo, unet: &UNetConfig, placement: Placement) -> Result<Self> {
        let time_ids = || TimeIds::of(request, info.takes("aesthetic_score"), placement);
        let embed = |width| {
            let embedding = guidance_scale_embedding(request.guidance_scale, width)?;
            upload(&embedding, placement.device)?.f_to_kind(placement.kind)
        };
        Ok(Self {
            time_ids: unet.addition_embed_type.map(|_| time_ids()).transpose()?,
            timestep_cond: unet.time_cond_proj_dim.map(embed).transpose()?,
        })
    }
}

impl TimeIds {
    /// In the order of diffusers' `_get_add_time_ids`; a refiner has the aesthetic score in the place of the target size.
    fn of(request: &GenerationRequest, scored: bool, placement: Placement) -> Result<Self> {
        // Requests of other clients than the API may come without; then the sizes are the picture's own.
        let sizes = request.sizes.clone().unwrap_or_else(|| SizeConditioning::of(request.width, request.height));
        let scores = request.aesthetics.unwrap_or_default();
        let ids = |original: [u32; 2], crop: [u32; 2], target: [u32; 2], score: f64| {
            let mut numbers: Vec<f64> = [original, crop].concat().into_iter().map(f64::from).collect();
            if scored {
                numbers.push(score)
            } else {
                numbers.extend(target.map(f64::from))
            }
            upload(&Tensor::f_from_slice(&numbers)?.f_to_kind(Kind::Float)?, placement.device)?.f_unsqueeze(0)
        };
        let [original, corner, target] = sizes.negative(scored, request.img2img.is_some());
        Ok(Self {
            positive: ids(sizes.original_size, sizes.crops_coords_top_left, sizes.target_size, scores.aesthetic_score)?,
            negative: ids(original, corner, target, scores.negative_aesthetic_score)?,
        })
    }
}
