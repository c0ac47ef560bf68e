//! Stable Diffusion as an [`Engine`].

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tch::Tensor;
use tracing::info;

use super::{
    autoencoder::{VaePolicy, VaeTiling},
    canvas::{Canvas, Takeover},
    conditioning::{ConditioningSchedule, RowPicture},
    deep_cache::{DeepCache, StepKeys},
    denoise,
    device::{Placement, PlacementPolicy, Precision},
    device_mark::DeviceMark,
    error::{LoadError, engine_error},
    extras::Extras,
    folder::{ModelFolder, describe_models},
    gpu::{Gpu, GpuSettings},
    layers::{Products, Result},
    loaded_model::Model,
    models::config::UNetConfig,
    noise::NoiseGenerator,
    pixels::Frame,
    prompt::{Lookups, PromptCachePolicy, PromptEmbeds, PromptEncoder},
    residency::{ModelHold, ModelSource, Residency, ResidencySettings},
    schedulers::Plan,
    source::Source,
    stages::{Stage, stages, total_steps},
    stored_model::StoredModel,
    transfer::upload,
};
use crate::{
    dispatch::ports::{
        Begun, CanvasState, Engine, EngineError, Line, ModelEvent, ModelReport, PaintOrder, Prepared, PromptLookups,
    },
    domain::{GenerationRequest, ModelInfo},
};

/// The VAE may take one in this many bytes of the device's memory, unless the settings say how much.
const VAE_SHARE: u64 = 3;

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
    /// When pictures go through the VAE in tiles.
    pub vae_tiling: VaeTiling,
    /// Bytes for one encode or decode, above which [`VaeTiling::Auto`] takes tiles; `None` decides by the device.
    pub vae_memory: Option<u64>,
    /// The most bytes that each model keeps of what its text encoders made of earlier prompts; 0 keeps nothing.
    pub prompt_cache: u64,
    /// The most bytes that each model keeps of its UNet's keys and values of prompts; 0 keeps nothing, and makes them in each call.
    pub prompt_kv_cache: u64,
    /// What a GPU is used with.
    pub gpu: GpuSettings,
    /// The models that are served.
    pub models: Vec<ModelFolder>,
    /// Which of them are on the device, and when.
    pub residency: ResidencySettings,
}

impl EngineSettings {
    fn vae_policy(&self, device: PlacementPolicy) -> VaePolicy {
        let bytes = self.vae_memory.unwrap_or_else(|| device.memory() / VAE_SHARE);
        VaePolicy { tiling: self.vae_tiling, bytes, float32_retries: Arc::default() }
    }
}

/// The models of one device.
pub struct StableDiffusion {
    models: Residency<Model>,
    device: PlacementPolicy,
    gpu: Gpu,
    /// As [`VaePolicy::float32_retries`].
    float32_retries: Arc<AtomicU64>,
    prompt_lookups: Arc<Lookups>,
}

impl fmt::Debug for StableDiffusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StableDiffusion").field("device", &self.device).finish_non_exhaustive()
    }
}

/// A stage of a request with all that its canvases have in common.
struct PreparedStage {
    model: ModelHold,
    keys: StepKeys,
    products: Products,
    plan: Arc<Plan>,
    /// Of all stages.
    steps: u32,
    /// None for a model that takes no text.
    text: Option<(PromptEmbeds, Extras)>,
}

impl PreparedStage {
    /// `picture` is what the UNet sees beside the latents.
    fn takeover(&self, request: &GenerationRequest, picture: &RowPicture) -> Takeover {
        Takeover {
            model: self.model.clone(),
            keys: self.keys.clone(),
            products: self.products,
            plan: Arc::clone(&self.plan),
            conditioning: match &self.text {
                Some((embeds, extras)) => ConditioningSchedule::of((request, self.steps), embeds, (extras, picture)),
                None => ConditioningSchedule::unconditional(),
            },
        }
    }
}

impl StableDiffusion {
    /// Loads the models that are not for later. To be called on the thread that will own the engine: libtorch's thread count belongs to a thread.
    ///
    /// # Errors
    /// When the device is not there, a config describes no model that is supported, or none of the models can be used.
    pub fn load(settings: &EngineSettings) -> std::result::Result<Self, LoadError> {
        let device = PlacementPolicy::choose(&settings.device, settings.dtype, settings.batch_invariant)?;
        if settings.threads > 0 {
            tch::set_num_threads(i32::try_from(settings.threads).unwrap_or(i32::MAX));
        }
        let gpu = Gpu::prepare(device, settings.gpu)?;
        let infos = describe_models(&settings.models)?;
        let vae_policy = settings.vae_policy(device);
        let (bytes, kv_bytes) = (settings.prompt_cache, settings.prompt_kv_cache);
        let prompt_cache = PromptCachePolicy { bytes, kv_bytes, ..PromptCachePolicy::default() };
        let stored = |(info, folder): (ModelInfo, &ModelFolder)| -> Box<dyn ModelSource<Model>> {
            let (vae_policy, prompt_cache) = (vae_policy.clone(), prompt_cache.clone());
            Box::new(StoredModel { info, folder: folder.clone(), device, vae_policy, prompt_cache, gpu })
        };
        let sources = infos.into_iter().zip(&settings.models).map(stored).collect();
        let models = Residency::start(sources, settings.residency.clone())?;
        let threads = tch::get_num_threads();
        info!(device = ?device.device, threads, models = models.loaded(), "models loaded");
        let (float32_retries, prompt_lookups) = (vae_policy.float32_retries, prompt_cache.lookups);
        Ok(Self { models, device, gpu, float32_retries, prompt_lookups })
    }

    /// Where a model's tensors are, and in which dtype.
    pub(super) fn placement_of(&self, model: &str) -> std::result::Result<Placement, EngineError> {
        let hold = self.models.hold(model)?;
        Ok(self.models.get(&hold)?.placement)
    }

    fn stages_of(&self, request: &GenerationRequest) -> std::result::Result<Vec<Stage>, EngineError> {
        let first = self.models.hold(&request.model)?;
        let refiner = request.refiner.as_ref().map(|refiner| self.models.hold(&refiner.refiner)).transpose()?;
        let refiner = refiner.as_ref().map(|hold| self.models.get(hold).map(|model| (hold, model))).transpose()?;
        Ok(stages(request, (&first, self.models.get(&first)?), refiner))
    }

    /// What each stage needs to become a part of a canvas.
    fn prepare_stage(
        &self,
        stage: Stage,
        (request, steps): (&GenerationRequest, u32),
    ) -> std::result::Result<PreparedStage, EngineError> {
        if !stage.plan.is_finite() {
            let problem = format!("{} has no solution with this model's config", request.scheduler);
            return Err(EngineError::Failed(problem));
        }
        let model = self.models.get(&stage.model)?;
        let text = model.prompts.as_ref().zip(model.unet.condition_config());
        let text = text.map(|(prompts, config)| self.tell(prompts, config, (request, steps, model))).transpose()?;
        let length = text.as_ref().map_or(0, |(embeds, _)| embeds.length());
        let products = model.products(request);
        let keys = keys((&model.info.name, products), model.latent_shape(request), length);
        Ok(PreparedStage { model: stage.model, keys, products, plan: Arc::new(stage.plan), steps, text })
    }

    /// What the UNet of a model that takes text is told.
    fn tell(
        &self,
        prompts: &PromptEncoder,
        config: &UNetConfig,
        (request, steps, model): (&GenerationRequest, u32, &Model),
    ) -> std::result::Result<(PromptEmbeds, Extras), EngineError> {
        let embeds = prompts.encode(request, steps, model.guides(request))?;
        let extras = Extras::of(request, &model.info, config, model.placement).map_err(|error| engine_error(&error))?;
        Ok((embeds, extras))
    }

    fn begin_canvases(
        &self,
        order: &PaintOrder,
        images: Range<u32>,
        stages: &[PreparedStage],
    ) -> std::result::Result<Vec<Canvas>, EngineError> {
        let Some((first, later)) = stages.split_first() else { return Ok(Vec::new()) };
        let model = self.models.get(&first.model)?;
        self.canvases(model, (order, images), (first, later))
    }

    fn canvases(
        &self,
        model: &Model,
        (order, images): (&PaintOrder, Range<u32>),
        (first, later): (&PreparedStage, &[PreparedStage]),
    ) -> std::result::Result<Vec<Canvas>, EngineError> {
        let request = &*order.request;
        let shape = model.latent_shape(request);
        let source = Source::encode(&model.first_stage, model.input, order)?;
        let canvas = |image: u32| {
            let mut generator = NoiseGenerator::new(request.noise_source, request.image_seed(image));
            let beginning = source.begin(&first.plan, || {
                let values = generator.randn(shape.iter().product::<i64>() as usize);
                upload(&Tensor::f_from_slice(&values)?.f_reshape(shape)?, self.device.device)
            })?;
            let Takeover { model, keys, products, plan, conditioning } = first.takeover(request, &beginning.picture);
            Ok(Canvas {
                model,
                begun_by: None,
                keys,
                products,
                pixels: request.width as usize * request.height as usize,
                latents: beginning.latents,
                history: Vec::new(),
                pred_original_sample: None,
                generator,
                noise: None,
                plan,
                calls: 0,
                conditioning,
                deep_cache: DeepCache::new(request.cache_interval),
                steps_before: 0,
                refiner: later.first().map(|stage| stage.takeover(request, &RowPicture::None)),
                kept: beginning.kept,
                underlay: source.underlay(),
                check: None,
            })
        };
        images.map(canvas).collect::<Result<_>>().map_err(|error| engine_error(&error))
    }

    fn decode(&mut self, canvas: &Canvas) -> std::result::Result<Frame, EngineError> {
        canvas.begun_by.into_iter().chain([canvas.model.model()]).for_each(|used| self.models.note_use(used));
        let first_stage = &self.models.get(&canvas.model)?.first_stage;
        // Beside the steps of other canvases, which do not wait for it.
        let frame = self.gpu.aside(&canvas.latents, || Ok(Frame::checked(&first_stage.decode(&canvas.latents)?)?));
        frame.map(|frame| frame.over(canvas.underlay.clone()).of_latents(canvas.check.clone()))
    }
}

impl Engine for StableDiffusion {
    type Canvas = Canvas;
    type Frame = Frame;
    type Model = Model;
    type Mark = DeviceMark;

    fn prepare(&mut self, request: &GenerationRequest) -> std::result::Result<Prepared<Model>, EngineError> {
        self.models.prepare(&request.models())
    }

    fn install(&mut self, model: &str, loaded: std::result::Result<Model, EngineError>) -> std::result::Result<(), EngineError> {
        self.models.install(model, loaded)
    }

    fn models(&self) -> Vec<ModelReport> {
        self.models.reports()
    }

    fn model_memory(&self) -> Option<u64> {
        self.models.budget()
    }

    fn evict_idle(&mut self, stay: &[&str]) -> bool {
        self.models.evict_idle(stay)
    }

    fn take_model_events(&mut self) -> Vec<ModelEvent> {
        self.models.take_events()
    }

    fn begin(&mut self, order: &PaintOrder, images: Range<u32>) -> std::result::Result<Begun<Canvas>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let stages = self.stages_of(&order.request)?;
        let steps = total_steps(&stages);
        let stages = stages.into_iter().map(|stage| self.prepare_stage(stage, (&order.request, steps)));
        let stages = stages.collect::<std::result::Result<Vec<_>, _>>()?;
        let canvases = self.begin_canvases(order, images, &stages)?;
        let warnings = stages.into_iter().filter_map(|stage| stage.text).flat_map(|(embeds, _)| embeds.warnings).collect();
        Ok(Begun { canvases, warnings })
    }

    fn step(
        &mut self,
        canvases: &mut [&mut Canvas],
    ) -> std::result::Result<Vec<std::result::Result<(), EngineError>>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let Some(first) = canvases.first() else { return Ok(Vec::new()) };
        if canvases.iter().any(|canvas| canvas.batch_key() != first.batch_key()) {
            return Err(EngineError::Failed("canvases of different batch keys cannot share a step".to_owned()));
        }
        let Model { unet, placement, .. } = self.models.get(&first.model)?;
        denoise::step(unet, placement.kind, canvases).map_err(|error| engine_error(&error))
    }

    fn preview(&mut self, canvas: &Canvas) -> std::result::Result<Option<Frame>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let Some(previewer) = &self.models.get(&canvas.model)?.previewer else { return Ok(None) };
        let frame = canvas.expected_latents().and_then(|latents| Frame::of(&previewer.apply(&latents)?));
        frame.map(Some).map_err(|error| engine_error(&error))
    }

    fn finish(&mut self, canvases: &[&Canvas]) -> std::result::Result<Vec<Frame>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        // One picture at a time: the decoder's bits and its memory then do not depend on how many there are.
        canvases.iter().map(|canvas| self.decode(canvas)).collect()
    }

    fn slow_first_calls(&self) -> u32 {
        // The first runs as it is, the second is recorded.
        if self.gpu.records() { 2 } else { 1 }
    }

    fn take_float32_retries(&mut self) -> u64 {
        self.float32_retries.swap(0, Ordering::Relaxed)
    }

    fn take_prompt_lookups(&mut self) -> PromptLookups {
        self.prompt_lookups.take()
    }

    fn mark(&mut self, line: Line) -> DeviceMark {
        DeviceMark::new(self.gpu.mark(line))
    }
}

/// Canvases of one model, one kind of products, one latent size and one length of the prompts' embeddings may share a step.
fn keys((model, products): (&str, Products), [_, _, height, width]: [i64; 4], length: i64) -> StepKeys {
    StepKeys::new(&format!("{model}/{products:?}/{height}x{width}/{length}"))
}
