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
    folder::{ModelFolder, describe_models, read_scheduler},
    latent_rgb::LatentRgb,
    layers::Result,
    models::{unet::UNet2DConditionModel, unet_input::UNetInput, vae::AutoencoderKL},
    noise::NoiseGenerator,
    pipeline::ModelIndex,
    pixels::Frame,
    prompt::{PromptEmbeds, PromptEncoder},
    residency::{ModelHold, ModelSource, Residency, ResidencySettings},
    schedulers::{Plan, SchedulerConfig, plan},
    source::Source,
    stored_model::StoredModel,
};
use crate::{
    dispatch::ports::{BatchKey, Begun, Engine, EngineError, ModelEvent, ModelReport, PaintOrder, Prepared},
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
    /// The models that are served.
    pub models: Vec<ModelFolder>,
    /// Which of them are on the device, and when.
    pub residency: ResidencySettings,
}

/// The models of one device.
pub struct StableDiffusion {
    models: Residency<Model>,
    placement: Placement,
}

impl fmt::Debug for StableDiffusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StableDiffusion").field("placement", &self.placement).finish_non_exhaustive()
    }
}

/// A model that is on the device.
pub struct Model {
    info: ModelInfo,
    prompts: PromptEncoder,
    unet: UNet2DConditionModel,
    input: UNetInput,
    vae: AutoencoderKL,
    scheduler: SchedulerConfig,
    latent_rgb: Option<LatentRgb>,
}

impl Model {
    pub(super) fn load(info: ModelInfo, folder: &Path, placement: Placement) -> std::result::Result<Self, LoadError> {
        let vae = AutoencoderKL::load(&folder.join("vae"), placement)?;
        let (scaling_factor, channels) = (vae.config().scaling_factor, vae.config().latent_channels);
        let prompts = PromptEncoder::load(folder, &ModelIndex::read(folder)?, placement)?;
        let unet = UNet2DConditionModel::load(&folder.join("unet"), placement)?;
        let (embeds, attended) = (prompts.width(), unet.config().cross_attention_dim.at(0));
        if attended != Some(embeds) {
            let problem =
                format!("the text encoders make embeddings of {embeds} channels, the UNet's cross_attention_dim is {attended:?}");
            return Err(LoadError::Invalid { path: folder.to_owned(), problem });
        }
        let input = UNetInput::of(unet.config(), vae.config());
        Ok(Self {
            prompts,
            input: input.map_err(|problem| LoadError::Invalid { path: folder.to_owned(), problem })?,
            unet,
            scheduler: read_scheduler(folder)?,
            latent_rgb: LatentRgb::load(folder, scaling_factor, channels, placement.device)?,
            info,
            vae,
        })
    }

    /// `[1, C, h, w]`, the latents of a picture of the request's size
    fn latent_shape(&self, request: &GenerationRequest) -> [i64; 4] {
        let factor = self.info.size_multiple;
        let side = |pixels: u32| i64::from(pixels / factor);
        [1, self.vae.config().latent_channels, side(request.height), side(request.width)]
    }

    fn plan(&self, request: &GenerationRequest) -> Plan {
        let skipped = request.num_inference_steps - request.effective_steps();
        plan(&self.scheduler, request.scheduler, request.num_inference_steps, skipped)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("info", &self.info).finish_non_exhaustive()
    }
}

impl StableDiffusion {
    /// Loads the models that are not for later. To be called on the thread that will own the engine: libtorch's thread count belongs to a thread.
    ///
    /// # Errors
    /// When the device is not there, a config describes no model that is supported, or none of the models can be used.
    pub fn load(settings: &EngineSettings) -> std::result::Result<Self, LoadError> {
        let placement = Placement::choose(&settings.device, settings.dtype, settings.batch_invariant)?;
        if settings.threads > 0 {
            tch::set_num_threads(i32::try_from(settings.threads).unwrap_or(i32::MAX));
        }
        let infos = describe_models(&settings.models)?;
        let source = |(info, folder): (ModelInfo, &ModelFolder)| -> Box<dyn ModelSource<Model>> {
            Box::new(StoredModel { info, folder: folder.path.clone(), placement })
        };
        let sources = infos.into_iter().zip(&settings.models).map(source).collect();
        let models = Residency::start(sources, settings.residency.clone())?;
        let Placement { device, kind, batch_invariant } = placement;
        let threads = tch::get_num_threads();
        info!(?device, dtype = ?kind, batch_invariant, threads, models = models.loaded(), "models loaded");
        Ok(Self { models, placement })
    }

    fn begin_canvases(
        &self,
        hold: &ModelHold,
        order: &PaintOrder,
        images: Range<u32>,
    ) -> std::result::Result<Begun<Canvas>, EngineError> {
        let model = self.models.get(hold)?;
        let embeds = model.prompts.encode(&order.request)?;
        let canvases = self.canvases((hold, model), order, images, &embeds).map_err(|error| engine_error(&error))?;
        Ok(Begun { canvases, warnings: embeds.warnings })
    }

    fn canvases(
        &self,
        (hold, model): (&ModelHold, &Model),
        order: &PaintOrder,
        images: Range<u32>,
        embeds: &PromptEmbeds,
    ) -> Result<Vec<Canvas>> {
        let request = &*order.request;
        let plan = Arc::new(model.plan(request));
        let shape = model.latent_shape(request);
        let source = Source::encode(&model.vae, model.input, order)?;
        let canvas = |image: u32| {
            let mut generator = NoiseGenerator::new(request.image_seed(image));
            let beginning = source.begin(&plan, || {
                let values = generator.randn(shape.iter().product::<i64>() as usize);
                Tensor::f_from_slice(&values)?.f_reshape(shape)?.f_to_device(self.placement.device)
            })?;
            Ok(Canvas {
                model: hold.clone(),
                batch_key: key(request, shape, embeds.length()),
                pixels: request.width as usize * request.height as usize,
                latents: beginning.latents,
                history: Vec::new(),
                plan: Arc::clone(&plan),
                step_index: 0,
                conditioning: ConditioningSchedule::of(request, embeds, &beginning.picture),
                kept: beginning.kept,
                underlay: source.underlay(),
            })
        };
        images.map(canvas).collect()
    }

    fn decode(&mut self, canvas: &Canvas) -> std::result::Result<Frame, EngineError> {
        self.models.use_of(&canvas.model);
        let decoded = self.models.get(&canvas.model)?.vae.decode(&canvas.latents);
        let frame = decoded.and_then(|pixels| Ok(Frame::of(&pixels.f_squeeze_dim(0)?)?.over(canvas.underlay.clone())));
        frame.map_err(|error| engine_error(&error))
    }
}

impl Engine for StableDiffusion {
    type Canvas = Canvas;
    type Frame = Frame;
    type Model = Model;

    fn prepare(&mut self, model: &str) -> std::result::Result<Prepared<Model>, EngineError> {
        self.models.prepare(model)
    }

    fn install(&mut self, model: &str, loaded: std::result::Result<Model, EngineError>) -> std::result::Result<(), EngineError> {
        self.models.install(model, loaded)
    }

    fn models(&self) -> Vec<ModelReport> {
        self.models.reports()
    }

    fn take_model_events(&mut self) -> Vec<ModelEvent> {
        self.models.take_events()
    }

    fn begin(&mut self, order: &PaintOrder, images: Range<u32>) -> std::result::Result<Begun<Canvas>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let hold = self.models.hold(&order.request.model)?;
        self.begin_canvases(&hold, order, images)
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
        let unet = &self.models.get(&first.model)?.unet;
        denoise::step(unet, self.placement.kind, canvases).map_err(|error| engine_error(&error))
    }

    fn preview(&mut self, canvas: &Canvas) -> std::result::Result<Option<Frame>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let Some(latent_rgb) = &self.models.get(&canvas.model)?.latent_rgb else { return Ok(None) };
        let frame = canvas.expected_latents().and_then(|latents| Frame::of(&latent_rgb.apply(&latents)?));
        frame.map(Some).map_err(|error| engine_error(&error))
    }

    fn finish(&mut self, canvases: &[&Canvas]) -> std::result::Result<Vec<Frame>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        // One picture at a time: the decoder's bits and its memory then do not depend on how many there are.
        canvases.iter().map(|canvas| self.decode(canvas)).collect()
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
