//! What some schedulers cannot do with a model, from its config.

use super::{PredictionType, SchedulerConfig, TimestepSpacing};
use crate::domain::{SchedulerAlgorithm as A, SchedulerLimit, SchedulerName};

/// The schedulers that cannot take as many steps with this model as a request may ask for, or none at all.
pub fn limits(config: &SchedulerConfig) -> Vec<SchedulerLimit> {
    A::ALL.into_iter().filter_map(|algorithm| limit(config, algorithm)).collect()
}

fn limit(config: &SchedulerConfig, algorithm: A) -> Option<SchedulerLimit> {
    let config = config.resolved(SchedulerName::own(algorithm));
    let limit = |max_steps: usize, reason: String| {
        Some(SchedulerLimit { algorithm, max_steps: u32::try_from(max_steps).unwrap_or(u32::MAX), reason })
    };
    if begins_with_nothing(&config, algorithm) {
        let reason = "its last training timestep is noise only (rescale_betas_zero_snr), and it predicts that noise, which says nothing of the \
                      picture; euler, dpmpp_2m and unipc can";
        return limit(0, reason.to_owned());
    }
    let (trained, distilled) = (config.num_train_timesteps, config.original_inference_steps);
    match algorithm {
        A::Lcm | A::Tcd if distilled < trained => {
            limit(distilled, format!("it was distilled to {distilled} (original_inference_steps)"))
        }
        // Between leading timesteps there must be one to drop.
        A::Deis | A::Unipc | A::Dpmpp2m | A::Dpmpp3m | A::Dpmpp2mSde | A::Dpmpp3mSde => {
            limit(trained.saturating_sub(1), format!("it was trained with {trained}"))
        }
        _ => limit(trained, format!("it was trained with {trained}")),
    }
}

/// ε of a sample without any signal leaves x₀ open. The schedulers with σ start from a very large one instead.
fn begins_with_nothing(config: &SchedulerConfig, algorithm: A) -> bool {
    let visits_last = match algorithm {
        A::Ddim | A::Ddpm => config.spacing() != TimestepSpacing::Leading,
        A::Lcm | A::Tcd => true,
        _ => false,
    };
    visits_last && config.rescale_betas_zero_snr && config.prediction_type == PredictionType::Epsilon
}
