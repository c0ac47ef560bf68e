//! `/v1/models` and `/v1/schedulers`: what a request may name.

use axum::{Json, extract::State};
use serde::Serialize;

use super::Context;
use crate::domain::{ModelInfo, ModelStatus, SchedulerAlgorithm, SchedulerName, SigmaSchedule};

/// The models that are served, the default one first.
#[derive(Serialize)]
pub(super) struct ModelsJson {
    models: Vec<ModelJson>,
}

/// What a request may ask of a model, and where the model is.
#[derive(Serialize)]
struct ModelJson {
    #[serde(flatten)]
    info: ModelInfo,
    #[serde(flatten)]
    status: ModelStatus,
}

/// The schedulers, with other spellings that are accepted.
#[derive(Serialize)]
pub(super) struct SchedulersJson {
    schedulers: Vec<SchedulerJson>,
}

/// One algorithm and what it takes.
#[derive(Serialize)]
struct SchedulerJson {
    name: &'static str,
    aliases: &'static [&'static str],
    /// The name alone, and with each sigma schedule behind it.
    names: Vec<&'static str>,
    sigma_schedules: Vec<&'static str>,
    /// Null when it takes none.
    default_eta: Option<f64>,
    stochastic: bool,
    unet_calls_per_step: u32,
}

impl SchedulerJson {
    fn of(algorithm: SchedulerAlgorithm) -> Self {
        let names = SchedulerName::all().filter(|name| name.algorithm == algorithm);
        Self {
            name: algorithm.name(),
            aliases: algorithm.aliases(),
            names: names.map(SchedulerName::as_str).collect(),
            sigma_schedules: algorithm.sigma_schedules().iter().filter_map(|schedule| SigmaSchedule::name(*schedule)).collect(),
            default_eta: algorithm.default_eta(),
            stochastic: algorithm.is_stochastic(),
            unet_calls_per_step: algorithm.unet_calls_per_step(),
        }
    }
}

/// `GET /v1/models`
pub(super) async fn models(State(context): State<Context>) -> Json<ModelsJson> {
    let (infos, statuses) = (context.dispatcher.models(), context.dispatcher.model_statuses());
    let models = infos.iter().cloned().zip(statuses).map(|(info, status)| ModelJson { info, status });
    Json(ModelsJson { models: models.collect() })
}

/// `GET /v1/schedulers`
pub(super) async fn schedulers() -> Json<SchedulersJson> {
    Json(SchedulersJson { schedulers: SchedulerAlgorithm::ALL.into_iter().map(SchedulerJson::of).collect() })
}
