//! A model that is on the device, with all its parts.

use std::{fmt, sync::Arc};

use super::{
    autoencoder::VaePolicy,
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    first_stage::FirstStage,
    folder::read_scheduler,
    gpu::{Gpu, SettlesFirst},
    layers::Products,
    models::{config::UNetConfig, unet_input::UNetInput},
    pipeline::ModelIndex,
    preview::Previewer,
    prompt::{PromptCachePolicy, PromptEncoder},
    schedulers::SchedulerConfig,
    unet::UNet,
};
use crate::domain::{GenerationRequest, ModelInfo};

/// A model that is on the device.
pub struct Model {
    /// First, for fields are dropped in their order.
    _settles_first: SettlesFirst,
    pub(super) info: ModelInfo,
    pub(super) placement: Placement,
    /// None for a model that takes no text.
    pub(super) prompts: Option<PromptEncoder>,
    pub(super) unet: UNet,
    /// Channels that the UNet moves.
    pub(super) channels: i64,
    /// Pixels a cell of that, in each direction.
    pub(super) factor: u32,
    pub(super) first_stage: FirstStage,
    pub(super) input: UNetInput,
    pub(super) scheduler: SchedulerConfig,
    pub(super) previewer: Option<Previewer>,
}

impl Model {
    /// Reads its weights and puts them on the device.
    ///
    /// # Errors
    /// What is missing in its files, or does not fit together.
    pub(super) fn load(
        info: ModelInfo,
        files: &Arc<ModelFiles>,
        (placement, gpu): (Placement, Gpu),
        vae_policy: VaePolicy,
        prompt_cache: PromptCachePolicy,
    ) -> Result<Self, LoadError> {
        let index = ModelIndex::read(files)?;
        let (samples, latents) = (index.unet().samples(files)?, index.first_stage().latents(files)?);
        let prompt_kv = prompt_cache.kv_bytes;
        let prompts = index.takes_text().then(|| PromptEncoder::load(files, &index, placement, prompt_cache)).transpose()?;
        let mut unet = UNet::load(files, index.unet(), placement)?;
        if info.takes("fp8_linears") {
            unet.add_fp8()?;
        }
        let embeds = prompts.as_ref().map(PromptEncoder::width);
        let attended = unet.condition_config().and_then(|config| config.cross_attention_dim.at(0));
        if attended != embeds {
            let [embeds, attended] = [embeds, attended].map(|width| width.map_or("none".to_owned(), |width| width.to_string()));
            let problem =
                format!("the text encoders make embeddings of {embeds} channels, the UNet's cross_attention_dim is {attended}");
            return Err(files.invalid(problem));
        }
        let input = samples.input(latents.channels);
        Ok(Self {
            _settles_first: SettlesFirst(gpu),
            placement,
            prompts,
            input: input.map_err(|problem| files.invalid(problem))?,
            unet: unet.recorded(gpu.graphs()).keeping(prompt_kv),
            channels: samples.out_channels,
            factor: latents.factor,
            first_stage: FirstStage::load(files, index.first_stage(), (latents, samples), placement, vae_policy)?,
            scheduler: read_scheduler(files, &index)?,
            previewer: Previewer::load(
                files,
                index.first_stage(),
                (latents.scaling_factor, samples.out_channels),
                placement.device,
            )?,
            info,
        })
    }

    /// `[1, C, h, w]`, what the UNet moves for a picture of the request's size.
    pub(super) fn latent_shape(&self, request: &GenerationRequest) -> [i64; 4] {
        let side = |pixels: u32| i64::from(pixels / self.factor);
        [1, self.channels, side(request.height), side(request.width)]
    }

    /// How its transformers' products are made for a request. A refiner may have no fp8 weights where the model that begins has.
    pub(super) fn products(&self, request: &GenerationRequest) -> Products {
        if request.fp8_linears && self.info.takes("fp8_linears") { Products::Fp8 } else { Products::Exact }
    }

    /// Whether an unconditional row shares its calls.
    pub(super) fn guides(&self, request: &GenerationRequest) -> bool {
        request.uses_guidance() && !self.unet.condition_config().is_some_and(UNetConfig::embeds_guidance)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("info", &self.info).finish_non_exhaustive()
    }
}
