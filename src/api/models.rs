//! `/v1/models` and `/v1/schedulers`: what a request may name.

use axum::{Json, extract::State};
use serde::Serialize;

use super::Context;
use crate::domain::{ModelInfo, ModelStatus, SchedulerName};

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

#[derive(Serialize)]
struct SchedulerJson {
    name: &'static str,
    aliases: &'static [&'static str],
}

/// `GET /v1/models`
pub(super) async fn models(State(context): State<Context>) -> Json<ModelsJson> {
    let (infos, statuses) = (context.dispatcher.models(), context.dispatcher.model_statuses());
    let models = infos.iter().cloned().zip(statuses).map(|(info, status)| ModelJson { info, status });
    Json(ModelsJson { models: models.collect() })
}

/// `GET /v1/schedulers`
pub(super) async fn schedulers() -> Json<SchedulersJson> {
    let entry = |scheduler: SchedulerName| SchedulerJson { name: scheduler.as_str(), aliases: scheduler.aliases() };
    Json(SchedulersJson { schedulers: SchedulerName::all().map(entry).collect() })
}
