//! Stable Diffusion as an [`Engine`].

use std::{fmt, ops::Range, path::Path, sync::Arc};

use tch::{Kind, Tensor};
use tracing::info;

use super::{
    canvas::Canvas,
    conditioning::ConditioningSchedule,
    denoise,
    device::{Placement, Precision},
    error::{LoadError, engine_error},
    first_stage::{Encoded, FirstStage},
    folder::{ModelFolder, describe_models, read_scheduler},
    layers::Result,
    noise::NoiseGenerator,
    pipeline::ModelIndex,
    pixels::Frame,
    preview::Previewer,
    prompt::{PromptEmbeds, PromptEncoder},
    schedulers::{Plan, SchedulerConfig, plan},
    unet::UNet,
};
use crate::{
    dispatch::ports::{BatchKey, Begun, Engine, EngineError, PaintOrder},
    domain::{GenerationRequest, ModelInfo},
};

/// What an engine is made from.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// The dtype of weights and activations.
    pub dtype: Precision,
    /// Same bits in any company; `None` decides by the device.
    pub batch_invariant: Option<bool>,
    /// CPU threads of one operation; 0 leaves it to libtorch.
    pub threads: usize,
    /// The models to load.
    pub models: Vec<ModelFolder>,
}

/// Every loaded model on one device.
pub struct StableDiffusion {
    models: Vec<Model>,
    placement: Placement,
}

impl fmt::Debug for StableDiffusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StableDiffusion").field("placement", &self.placement).finish_non_exhaustive()
    }
}

struct Model {
    info: ModelInfo,
    /// None for a model that takes no text.
    prompts: Option<PromptEncoder>,
    unet: UNet,
    /// Channels that the UNet moves.
    channels: i64,
    /// Pixels a cell of that, in each direction.
    factor: u32,
    first_stage: FirstStage,
    scheduler: SchedulerConfig,
    previewer: Option<Previewer>,
}

impl Model {
    fn load(info: ModelInfo, folder: &Path, placement: Placement) -> std::result::Result<Self, LoadError> {
        let index = ModelIndex::read(folder)?;
        let (samples, latents) = (index.unet().samples(folder)?, index.first_stage().latents(folder)?);
        let prompts = index.takes_text().then(|| PromptEncoder::load(folder, &index, placement)).transpose()?;
        let unet = UNet::load(folder, index.unet(), placement)?;
        let (embeds, attended) = (prompts.as_ref().map(PromptEncoder::width), unet.cross_attention_dim());
        if attended != embeds {
            let problem =
                format!("the text encoders make embeddings of {embeds:?} channels, the UNet's cross_attention_dim is {attended:?}");
            return Err(LoadError::Invalid { path: folder.to_owned(), problem });
        }
        let channels = samples.in_channels;
        Ok(Self {
            prompts,
            unet,
            channels,
            factor: latents.factor,
            first_stage: FirstStage::load(folder, index.first_stage(), channels, placement)?,
            scheduler: read_scheduler(folder)?,
            previewer: Previewer::load(folder, index.first_stage(), (latents.scaling_factor, channels), placement.device)?,
            info,
        })
    }

    /// `[1, C, h, w]`, what the UNet moves for a picture of the request's size
    fn latent_shape(&self, request: &GenerationRequest) -> [i64; 4] {
        let side = |pixels: u32| i64::from(pixels / self.factor);
        [1, self.channels, side(request.height), side(request.width)]
    }

    fn plan(&self, request: &GenerationRequest) -> Plan {
        let skipped = request.num_inference_steps - request.effective_steps();
        plan(&self.scheduler, request.scheduler, request.num_inference_steps, skipped)
    }
}

impl StableDiffusion {
    /// Loads every model. To be called on the thread that will own the engine: libtorch's thread count belongs to a thread.
    ///
    /// # Errors
    /// When the device is not there, or a folder does not hold a model that is supported.
    pub fn load(settings: &EngineSettings) -> std::result::Result<Self, LoadError> {
        let placement = Placement::choose(&settings.device, settings.dtype, settings.batch_invariant)?;
        if settings.threads > 0 {
            tch::set_num_threads(i32::try_from(settings.threads).unwrap_or(i32::MAX));
        }
        let infos = describe_models(&settings.models)?;
        let models = infos.into_iter().zip(&settings.models).map(|(info, folder)| Model::load(info, &folder.path, placement));
        let models = models.collect::<std::result::Result<Vec<_>, _>>()?;
        let Placement { device, kind, batch_invariant } = placement;
        info!(?device, dtype = ?kind, batch_invariant, threads = tch::get_num_threads(), models = models.len(), "models loaded");
        Ok(Self { models, placement })
    }

    fn model_of(&self, request: &GenerationRequest) -> std::result::Result<(usize, &Model), EngineError> {
        let found = self.models.iter().enumerate().find(|(_, model)| model.info.name == request.model);
        found.ok_or_else(|| EngineError::UnknownModel(request.model.clone()))
    }

    fn begin_canvases(&self, place: usize, order: &PaintOrder, images: Range<u32>, embeds: Option<&PromptEmbeds>) -> Result<Vec<Canvas>> {
        let (request, model) = (&*order.request, &self.models[place]);
        let plan = Arc::new(model.plan(request));
        let shape = model.latent_shape(request);
        let encode = |picture| model.first_stage.encode(picture, (request.width, request.height), self.placement);
        let encoded = order.init_image.as_deref().map(encode).transpose()?;
        let canvas = |image: u32| {
            let mut generator = NoiseGenerator::new(request.image_seed(image));
            Ok(Canvas {
                model: place,
                batch_key: key(request, shape, embeds.map_or(0, PromptEmbeds::length)),
                pixels: request.width as usize * request.height as usize,
                latents: self.first_latents(&plan, &mut generator, encoded.as_ref(), shape)?,
                history: Vec::new(),
                plan: Arc::clone(&plan),
                step_index: 0,
                conditioning: embeds.map_or_else(ConditioningSchedule::unconditional, |embeds| ConditioningSchedule::of(request, embeds)),
            })
        };
        images.map(canvas).collect()
    }

    /// What the first step starts from. diffusers draws the noise of a picture's distribution before the initial noise.
    fn first_latents(
        &self,
        plan: &Plan,
        generator: &mut NoiseGenerator,
        encoded: Option<&Encoded>,
        shape: [i64; 4],
    ) -> Result<Tensor> {
        let mut noise = || {
            let values = generator.randn(shape.iter().product::<i64>() as usize);
            Tensor::f_from_slice(&values)?.f_reshape(shape)?.f_to_device(self.placement.device)
        };
        match (encoded, plan.steps.first()) {
            (Some(encoded), Some(first)) => {
                let latents = encoded.sample(&mut noise)?.f_mul_scalar(first.start.signal)?;
                latents.f_add(&noise()?.f_mul_scalar(first.start.noise)?)
            }
            _ => noise()?.f_mul_scalar(plan.init_noise_sigma),
        }
    }
}

impl Engine for StableDiffusion {
    type Canvas = Canvas;
    type Frame = Frame;

    fn begin(&mut self, order: &PaintOrder, images: Range<u32>) -> std::result::Result<Begun<Canvas>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let (place, model) = self.model_of(&order.request)?;
        let embeds = model.prompts.as_ref().map(|prompts| prompts.encode(&order.request)).transpose()?;
        let canvases = self.begin_canvases(place, order, images, embeds.as_ref()).map_err(|error| engine_error(&error))?;
        Ok(Begun { canvases, warnings: embeds.map(|embeds| embeds.warnings).unwrap_or_default() })
    }

    fn step(
        &mut self,
        canvases: &mut [&mut Canvas],
    ) -> std::result::Result<Vec<std::result::Result<(), EngineError>>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let Some(first) = canvases.first() else { return Ok(Vec::new()) };
        if canvases.iter().any(|canvas| canvas.batch_key != first.batch_key) {
            return Err(EngineError::Failed("canvases of different batch keys cannot share a step".to_owned()));
        }
        let unet = &self.models[first.model].unet;
        denoise::step(unet, self.placement.kind, canvases).map_err(|error| engine_error(&error))
    }

    fn preview(&mut self, canvas: &Canvas) -> std::result::Result<Option<Frame>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let Some(previewer) = &self.models[canvas.model].previewer else { return Ok(None) };
        // What the last step predicted the finished picture to be; far clearer than the latents, which still hold the noise.
        let latents = canvas.history.first().unwrap_or(&canvas.latents);
        let frame = previewer.apply(latents).and_then(|pixels| Frame::of(&pixels));
        frame.map(Some).map_err(|error| engine_error(&error))
    }

    fn finish(&mut self, canvases: &[&Canvas]) -> std::result::Result<Vec<Frame>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        // One picture at a time: the decoder's bits and its memory then do not depend on how many there are.
        let decode = |canvas: &&Canvas| Frame::of(&self.models[canvas.model].first_stage.decode(&canvas.latents)?);
        canvases.iter().map(decode).collect::<Result<_>>().map_err(|error| engine_error(&error))
    }
}

/// Canvases of one model, one latent size and one length of the prompts' embeddings may share a step.
fn key(request: &GenerationRequest, [_, _, height, width]: [i64; 4], length: i64) -> BatchKey {
    BatchKey::new(&format!("{}/{height}x{width}/{length}", request.model))
}

impl Canvas {
    /// The latents as they are: `[1, C, h, w]` float32 values and their shape. For comparing with other implementations.
    ///
    /// # Errors
    /// When the device fails.
    pub fn latents(&self) -> std::result::Result<(Vec<i64>, Vec<f32>), EngineError> {
        let read = || {
            let latents = self.latents.f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
            let mut values = vec![0.0_f32; latents.numel()];
            let count = values.len();
            latents.f_copy_data(&mut values, count)?;
            Ok((latents.size(), values))
        };
        read().map_err(|error| engine_error(&error))
    }
}
