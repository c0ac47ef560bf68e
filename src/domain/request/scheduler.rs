//! The noise scheduler of a request.

use serde_json::Value;

use super::{
    super::{
        ModelInfo, SchedulerAlgorithm, SigmaSchedule,
        fields::{Fields, describe, number},
    },
    SchedulerName,
};

/// The scheduler, by default the model's own, and its `eta`.
pub(super) fn take_scheduler(
    fields: &mut Fields,
    (model, refiner): (&ModelInfo, Option<&ModelInfo>),
    num_inference_steps: u32,
    warnings: &mut Vec<String>,
) -> (SchedulerName, Option<f64>) {
    let scheduler = fields.take("scheduler", parse_scheduler).unwrap_or(model.default_scheduler);
    let eta = fields.take("eta", |value| if value.is_null() { Ok(None) } else { number(0.0, 1.0)(value).map(Some) }).flatten();
    if eta.is_some() && scheduler.algorithm.default_eta().is_none() && !fields.failed("scheduler") {
        warnings.push(format!("eta has no effect with {scheduler}"));
    }
    check_limit(fields, (model, "this model"), scheduler, num_inference_steps);
    if let Some(refiner) = refiner {
        check_limit(fields, (refiner, &format!("the refiner {}", refiner.name)), scheduler, num_inference_steps);
    }
    (scheduler, eta)
}

/// What a scheduler cannot do with a model, which errors call by the name beside it.
fn check_limit(fields: &mut Fields, (model, name): (&ModelInfo, &str), scheduler: SchedulerName, num_inference_steps: u32) {
    let limit = model.scheduler_limits.iter().find(|limit| limit.algorithm == scheduler.algorithm);
    let Some(limit) = limit.filter(|limit| num_inference_steps > limit.max_steps) else { return };
    if fields.failed("scheduler") || fields.failed("num_inference_steps") {
        return;
    }
    if limit.max_steps == 0 {
        fields.fail("scheduler", format!("{scheduler} cannot be used with {name}: {}", limit.reason));
    } else {
        let most = limit.max_steps;
        fields.fail(
            "num_inference_steps",
            format!("must be at most {most} with {scheduler} and {name}: {}; got {num_inference_steps}", limit.reason),
        );
    }
}

fn parse_scheduler(value: Value) -> Result<SchedulerName, String> {
    value.as_str().and_then(SchedulerName::parse).ok_or_else(|| {
        let names = SchedulerAlgorithm::ALL.map(SchedulerAlgorithm::name).join(", ");
        let endings: Vec<&str> = SigmaSchedule::NAMED.iter().filter_map(|schedule| schedule.name()).collect();
        let endings = endings.join(", _");
        format!("must be one of {names}, or one with _{endings} behind it where /v1/schedulers has it; got {}", describe(&value))
    })
}
