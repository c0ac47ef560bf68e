//! A model's folder in diffusers layout, and what its configs say about the model without loading any weights.

use std::{ops::RangeInclusive, path::PathBuf};

use serde_json::Value;
use tracing::warn;

use super::{
    error::LoadError,
    files::{FileSettings, ModelFiles, RandomModel},
    first_stage::Latents,
    models::{config::UNetConfig, unet_input::UNetInput},
    pipeline::ModelIndex,
    schedulers::{SchedulerConfig, limits},
    unet::UNetClass,
};
use crate::domain::{Family, ModelInfo, SIDES, SchedulerAlgorithm, SchedulerName, Task, micro_conditioning_fields};

const DEFAULT_GUIDANCE_SCALE: f64 = 7.5;
/// diffusers' default of Stable Diffusion XL's pipelines.
const XL_GUIDANCE_SCALE: f64 = 5.0;
const DEFAULT_STEPS: u32 = 25;
/// diffusers' defaults of `LatentConsistencyModelPipeline`.
const FEW_STEPS: u32 = 4;
const DISTILLED_GUIDANCE_SCALE: f64 = 8.5;
/// diffusers' default of `LDMTextToImagePipeline`, and the scale of the paper's own script.
const LATENT_DIFFUSION_STEPS: u32 = 50;
const LATENT_DIFFUSION_GUIDANCE_SCALE: f64 = 5.0;
/// diffusers' default of `DDIMPipeline`.
const UNCONDITIONAL_STEPS: u32 = 50;
/// CLIP's, and BERT's in latent diffusion.
const PROMPT_TOKENS: u32 = 77;

/// A plan holds a number for each; every known model was trained with 1,000.
const TRAIN_TIMESTEPS: RangeInclusive<usize> = 1..=100_000;

/// Where a model is, and what the settings say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFolder {
    /// The name that requests use.
    pub name: String,
    /// The folder with `model_index.json`, or the `.safetensors` file.
    pub path: PathBuf,
    /// What the settings say about its files.
    pub files: FileSettings,
    /// The guidance scale of requests that name none.
    pub guidance_scale: Option<f64>,
    /// The steps of requests that name no number.
    pub num_inference_steps: Option<u32>,
    /// The largest width and height, in pixels.
    pub max_size: Option<u32>,
    /// Whether requests may ask for products in fp8, for which there is a second set of weights.
    pub fp8_linears: bool,
    /// A model of random weights in the place of the path's.
    pub random: Option<RandomModel>,
}

impl ModelFolder {
    /// A model with nothing set.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            files: FileSettings::default(),
            guidance_scale: None,
            num_inference_steps: None,
            max_size: None,
            fp8_linears: false,
            random: None,
        }
    }

    /// A model of random weights.
    pub fn random(model: RandomModel) -> Self {
        Self { random: Some(model), ..Self::new(model.name(), model.name()) }
    }

    /// Opens its files. No weights are read.
    pub(super) fn open(&self) -> Result<ModelFiles, LoadError> {
        match self.random {
            Some(model) => ModelFiles::random(model),
            None => ModelFiles::open_with(&self.path, &self.files),
        }
    }
}

/// What requests may ask of each model, from the folders' configs alone.
///
/// # Errors
/// When a folder or a config is missing, or describes a model that is not supported.
pub fn describe_models(folders: &[ModelFolder]) -> Result<Vec<ModelInfo>, LoadError> {
    let described = folders.iter().map(describe).collect::<Result<Vec<_>, _>>()?;
    let refine = |(info, kind): &(ModelInfo, Latents)| (info.can(Task::Refiner).then(|| info.name.clone()), *kind);
    let refining: Vec<(Option<String>, Latents)> = described.iter().map(refine).collect();
    let refiners = |info: &ModelInfo, own: Latents| {
        let fitting = refining.iter().filter(|(_, kind)| *kind == own).filter_map(|(name, _)| name.clone());
        fitting.filter(|name| *name != info.name).collect::<Vec<_>>()
    };
    Ok(described.into_iter().map(|(info, kind)| ModelInfo { refiners: refiners(&info, kind), ..info }).collect())
}

fn describe(folder: &ModelFolder) -> Result<(ModelInfo, Latents), LoadError> {
    let files = folder.open()?;
    let index = ModelIndex::read(&files)?;
    files.require(&index.parts())?;
    let (samples, latents) = (index.unet().samples(&files)?, index.first_stage().latents(&files)?);
    let input = samples.input(latents.channels).map_err(|problem| files.invalid(problem))?;
    let scheduler = read_scheduler(&files, &index)?;
    let asked = match index.unet() {
        UNetClass::Condition => Asked::with_text(&index, &files, &scheduler)?,
        UNetClass::Plain => Asked::without_text(),
    };
    if folder.fp8_linears && !index.takes_text() {
        return Err(
            files.invalid("fp8_linears: the UNet takes no text and has no transformers, in which alone there are such linears")
        );
    }
    let without_fp8: &[&str] = if folder.fp8_linears { &[] } else { &["fp8_linears"] };
    let multiple = latents.factor * samples.grid;
    let own = samples.size.map(|side| side.saturating_mul(latents.factor));
    let smallest = own.into_iter().filter(|&side| side > 0).fold(*SIDES.start(), u32::min);
    let info = ModelInfo {
        name: folder.name.clone(),
        family: asked.family,
        tasks: tasks(asked.family, input),
        unsupported_fields: [&asked.unsupported_fields, unsupported_by_input(input), without_fp8].concat(),
        refiners: Vec::new(),
        prompt_tokens: if index.takes_text() { PROMPT_TOKENS } else { 0 },
        default_num_inference_steps: folder.num_inference_steps.unwrap_or(asked.steps),
        default_width: 0,
        default_height: 0,
        size_multiple: multiple,
        min_size: smallest.next_multiple_of(multiple),
        max_size: folder.max_size.unwrap_or(*SIDES.end()) / multiple * multiple,
        default_guidance_scale: folder.guidance_scale.filter(|_| index.takes_text()).unwrap_or(asked.guidance_scale),
        default_scheduler: default_scheduler(&folder.name, &scheduler),
        scheduler_limits: limits(&scheduler),
    };
    let [height, width] = own.map(|side| info.fit_to_grid(side));
    Ok((ModelInfo { default_width: width, default_height: height, ..info }, latents))
}

/// What a model's kind says of its requests.
struct Asked {
    family: Family,
    unsupported_fields: Vec<&'static str>,
    /// The default number.
    steps: u32,
    /// The default.
    guidance_scale: f64,
}

impl Asked {
    fn with_text(index: &ModelIndex, files: &ModelFiles, scheduler: &SchedulerConfig) -> Result<Self, LoadError> {
        let unet = UNetConfig::read(files)?;
        let (family, scored) = (index.family(&unet), index.is_scored(files, &unet)?);
        let unsupported_fields = unsupported_fields(&unet, scored);
        let (steps, guidance_scale) = match family {
            Family::LatentDiffusion => (LATENT_DIFFUSION_STEPS, LATENT_DIFFUSION_GUIDANCE_SCALE),
            _ => (default_steps(&unet, scheduler), default_guidance_scale(&unet, scheduler)),
        };
        Ok(Self { family, unsupported_fields, steps, guidance_scale })
    }

    fn without_text() -> Self {
        let text =
            ["prompt", "negative_prompt", "prompt_syntax", "clip_skip", "guidance_scale", "guidance_rescale", "guidance_interval"];
        let unsupported_fields = text.into_iter().chain(["cache_interval"]).chain(micro_conditioning_fields()).collect();
        Self { family: Family::Unconditional, unsupported_fields, steps: UNCONDITIONAL_STEPS, guidance_scale: 1.0 }
    }
}

/// diffusers has no text2img pipeline for a refiner. A model that sees a picture beside the latents goes on with nobody's.
fn tasks(family: Family, input: UNetInput) -> Vec<Task> {
    match (family, input) {
        (_, UNetInput::Picture) => vec![Task::InstructPix2pix],
        (_, UNetInput::MaskedPicture) => vec![Task::Text2img, Task::Img2img, Task::Inpainting],
        (Family::Unconditional, _) => vec![Task::Unconditional, Task::Img2img, Task::Inpainting],
        (Family::StableDiffusionXlRefiner, _) => vec![Task::Img2img, Task::Inpainting, Task::Refiner],
        _ => vec![Task::Text2img, Task::Img2img, Task::Inpainting, Task::Refiner],
    }
}

fn unsupported_fields(unet: &UNetConfig, scored: bool) -> Vec<&'static str> {
    let is_told_sizes = unet.addition_embed_type.is_some();
    let told =
        |field: &&str| if field.contains("aesthetic") { scored } else { is_told_sizes && !(scored && field.contains("target")) };
    let untold = micro_conditioning_fields().filter(|field| !told(field));
    // What a distilled model's guidance leads away from was settled when it was distilled.
    let distilled = unet.embeds_guidance().then_some(["negative_prompt", "guidance_rescale", "guidance_interval"]);
    untold.chain(distilled.into_iter().flatten()).collect()
}

/// An instruct-pix2pix model sees the whole picture at every step, and no other model sees one.
fn unsupported_by_input(input: UNetInput) -> &'static [&'static str] {
    match input {
        UNetInput::Picture => &["strength", "mask_image", "mask_blur"],
        UNetInput::Latents | UNetInput::MaskedPicture => &["image_guidance_scale"],
    }
}

/// The classes that belong to models which were distilled to few steps.
fn is_few_step(scheduler: &SchedulerConfig) -> bool {
    ["LCMScheduler", "TCDScheduler"].contains(&scheduler.class_name.as_str())
}

fn default_steps(unet: &UNetConfig, scheduler: &SchedulerConfig) -> u32 {
    if unet.embeds_guidance() || is_few_step(scheduler) { FEW_STEPS } else { DEFAULT_STEPS }
}

fn default_guidance_scale(unet: &UNetConfig, scheduler: &SchedulerConfig) -> f64 {
    match (unet.embeds_guidance(), is_few_step(scheduler)) {
        (true, _) => DISTILLED_GUIDANCE_SCALE,
        (false, true) => 1.0,
        (false, false) if unet.addition_embed_type.is_some() => XL_GUIDANCE_SCALE,
        (false, false) => DEFAULT_GUIDANCE_SCALE,
    }
}

/// Reads `scheduler/scheduler_config.json`, and refuses what no plan can honour. `algorithm_type` and `solver_order` are not refused: a
/// request that names `dpmpp_2m` asks for DPM-Solver++ of second order, whatever the folder's own form of it is.
pub(super) fn read_scheduler(files: &ModelFiles, index: &ModelIndex) -> Result<SchedulerConfig, LoadError> {
    let off = [Value::Null, Value::Bool(false)];
    let supported: [(&str, &[Value]); 6] = [
        ("use_lu_lambdas", &off),
        ("use_flow_sigmas", &off),
        ("use_dynamic_shifting", &off),
        ("interpolation_type", &[Value::from("linear")]),
        ("timestep_type", &[Value::from("discrete")]),
        ("solver_p", &[Value::Null]),
    ];
    let config: SchedulerConfig = files.config("scheduler", &supported)?;
    if !TRAIN_TIMESTEPS.contains(&config.num_train_timesteps) {
        let problem = format!("num_train_timesteps = {} is not from 1 to {}", config.num_train_timesteps, TRAIN_TIMESTEPS.end());
        return Err(files.invalid_config("scheduler", problem));
    }
    Ok(if index.corrects_scheduler() { config.corrected() } else { config })
}

/// The scheduler that the folder names; DDIM where that one is not served.
fn default_scheduler(model: &str, config: &SchedulerConfig) -> SchedulerName {
    let named = config.own_scheduler();
    if named.is_none() {
        warn!(
            model.name = model,
            scheduler.class = config.class_name,
            "the model's own scheduler is not served; its default is ddim"
        );
    }
    named.unwrap_or(SchedulerName::own(SchedulerAlgorithm::Ddim))
}
