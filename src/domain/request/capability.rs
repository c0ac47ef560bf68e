//! What the models that paint a request can do, and what they do not take.

use serde_json::Value;

use super::super::{ModelInfo, Task, fields::Fields};

/// Refuses the fields that mean nothing to any of the models that paint.
pub(super) fn refuse_unsupported(fields: &mut Fields, painters: &[&ModelInfo]) {
    let Some(model) = painters.first() else { return };
    for field in &model.unsupported_fields {
        if !painters.iter().any(|painter| painter.takes(field)) {
            fields.refuse(field, |value| is_default(field, value), refusal(model, field));
        }
    }
}

fn refusal(model: &ModelInfo, field: &str) -> String {
    if field == "fp8_linears" {
        return format!("must be false: the model {} is served without fp8 weights (fp8_linears of its settings)", model.name);
    }
    let instead = match field {
        "image_guidance_scale" => "; only instruct-pix2pix models take it",
        "strength" => "; it runs all steps, and image_guidance_scale says how closely it follows the picture",
        "mask_image" | "mask_blur" => "; it changes the whole picture",
        _ => "",
    };
    format!("has no meaning to the model {} ({}){instead}", model.name, model.family)
}

/// Whether this is the contract's default, which some generated clients send with every request.
fn is_default(field: &str, value: &Value) -> bool {
    match field {
        "prompt_syntax" => value == "plain",
        "cache_interval" => value.as_f64() == Some(1.0),
        "fp8_linears" => *value == false,
        "guidance_rescale" | "mask_blur" => value.as_f64() == Some(0.0),
        "guidance_interval" => value.as_array().is_some_and(|ends| ends.iter().map(Value::as_f64).eq([Some(0.0), Some(1.0)])),
        _ => false,
    }
}

/// Whether the model does what is asked: with a picture img2img, without text2img. A model that is instructed has a check of its own.
pub(super) fn check_task(fields: &mut Fields, model: &ModelInfo, has_picture: bool) {
    let task = match (has_picture, model.takes("prompt")) {
        (true, _) => Task::Img2img,
        (false, true) => Task::Text2img,
        (false, false) => Task::Unconditional,
    };
    if model.can(task) || model.can(Task::InstructPix2pix) || fields.failed("image") {
        return;
    }
    let needs = if has_picture { "must not be given" } else { "is required" };
    let tasks: Vec<&str> = model.tasks.iter().map(|task| task.name()).collect();
    fields.fail("image", format!("{needs}: the model {} does {} and no {}", model.name, tasks.join(", "), task.name()));
}
