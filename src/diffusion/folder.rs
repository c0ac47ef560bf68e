//! A model's folder in diffusers layout, and what its configs say about the model without loading any weights.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tracing::warn;

use super::{
    error::LoadError,
    models::config::{UNetConfig, VaeConfig, read_config},
    pipeline::ModelIndex,
    schedulers::SchedulerConfig,
};
use crate::domain::{ModelInfo, SIDES, SchedulerAlgorithm, SchedulerName};

const DEFAULT_GUIDANCE_SCALE: f64 = 7.5;

/// Where a model is, and what the settings say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFolder {
    /// The name that requests use.
    pub name: String,
    /// The folder with `model_index.json`.
    pub path: PathBuf,
    /// The guidance scale of requests that name none.
    pub guidance_scale: Option<f64>,
    /// The largest width and height, in pixels.
    pub max_size: Option<u32>,
}

/// What requests may ask of each model, from the folders' configs alone.
///
/// # Errors
/// When a folder or a config is missing, or describes a model that is not supported.
pub fn describe_models(folders: &[ModelFolder]) -> Result<Vec<ModelInfo>, LoadError> {
    folders.iter().map(describe).collect()
}

fn describe(folder: &ModelFolder) -> Result<ModelInfo, LoadError> {
    let index = ModelIndex::read(&folder.path)?;
    let (samples, latents) = (index.unet().samples(&folder.path)?, index.first_stage().latents(&folder.path)?);
    check_channels(folder, samples, latents)?;
    let takes_text = index.takes_text();
    let guidance_scale = folder.guidance_scale.filter(|_| takes_text);
    let info = ModelInfo {
        name: folder.name.clone(),
        takes_text,
        default_guidance_scale: guidance_scale.unwrap_or(if takes_text { DEFAULT_GUIDANCE_SCALE } else { NO_GUIDANCE }),
        default_scheduler: default_scheduler(&folder.name, &read_scheduler(&folder.path)?),
        ..sizes(folder, samples, latents)
    };
    Ok(info)
}

/// Reads `scheduler/scheduler_config.json`, and refuses what no plan can honour. `algorithm_type` and a `solver_order` above 2 are not refused:
/// a request that names `dpmpp_2m` asks for DPM-Solver++ of second order, whatever the folder's own form of it is.
pub(super) fn read_scheduler(folder: &Path) -> Result<SchedulerConfig, LoadError> {
    let off = [Value::Null, Value::Bool(false)];
    let supported: [(&str, &[Value]); 7] = [
        ("use_exponential_sigmas", &off),
        ("use_beta_sigmas", &off),
        ("use_lu_lambdas", &off),
        ("use_flow_sigmas", &off),
        ("use_dynamic_shifting", &off),
        ("interpolation_type", &[Value::from("linear")]),
        ("timestep_type", &[Value::from("discrete")]),
    ];
    read_config(&folder.join("scheduler/scheduler_config.json"), &supported).map(SchedulerConfig::corrected)
}

/// The scheduler that the folder names; DDIM where that one is not served.
fn default_scheduler(model: &str, config: &SchedulerConfig) -> SchedulerName {
    let named = SchedulerName::parse(&config.class_name).filter(|_| !config.is_stochastic());
    if named.is_none() {
        warn!(
            model.name = model,
            scheduler.class = config.class_name,
            "the model's own scheduler is not served; its default is ddim"
        );
    }
    let name = named.unwrap_or(SchedulerName { algorithm: SchedulerAlgorithm::Ddim, karras: false });
    SchedulerName { karras: config.use_karras_sigmas && name.algorithm != SchedulerAlgorithm::Ddim, ..name }
}
