//! Parses a request's body: every bad field is reported at once.

use serde_json::Value;

use super::{
    super::{
        FieldError, ModelInfo, Task,
        fields::{Fields, boolean, describe, integer},
        find_model,
    },
    GenerationRequest, InputPicture, InputPictures, MAX_IMAGES, NoiseSource, STEPS, Submission,
    capability::{check_task, refuse_unsupported},
    fields::{
        DEFAULT_PRIORITY, MAX_PRIORITY, every_call, parse_cache_interval, parse_deadline, parse_metadata, parse_seed, take_output,
    },
    guidance::take_guidance,
    img2img::{take_image_guidance_scale, take_img2img, take_instruction},
    inpainting::take_inpainting,
    prompt::{check_prompts, take_prompts},
    refiner::take_refiner,
    scheduler::take_scheduler,
    size::take_size,
    sizes::{take_scores, take_sizes},
};

impl Submission {
    /// Parses a request's body against the models that are served, the first of which is the default.
    ///
    /// `random_seed` is used when the body names none.
    ///
    /// # Errors
    /// Every bad field at once. The body's own shape (an object) is an error at the empty pointer.
    pub fn parse(body: Value, models: &[ModelInfo], random_seed: u64) -> Result<Self, Vec<FieldError>> {
        let Value::Object(body) = body else {
            let detail = format!("must be an object, got {}", describe(&body));
            return Err(vec![FieldError { pointer: String::new(), detail }]);
        };
        let mut fields = Fields::new(body);
        let model = take_model(&mut fields, models);
        let parsed = model.and_then(|model| parse_for(&mut fields, (model, models), random_seed));
        let errors = fields.into_errors();
        match parsed {
            Some(submission) if errors.is_empty() => Ok(submission),
            _ => Err(errors),
        }
    }
}

/// The model that the request names, or the default one, so that the other fields can be checked whatever was named.
fn take_model<'a>(fields: &mut Fields, models: &'a [ModelInfo]) -> Option<&'a ModelInfo> {
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    let allowed = format!("must be one of {}", names.join(", "));
    let named = fields.take("model", |value| {
        value.as_str().and_then(|name| find_model(models, name)).ok_or(format!("{allowed}; got {}", describe(&value)))
    });
    named.or(models.first())
}

fn parse_for(fields: &mut Fields, (model, models): (&ModelInfo, &[ModelInfo]), random_seed: u64) -> Option<Submission> {
    let mut warnings = Vec::new();
    let refiner = take_refiner(fields, (model, models), &mut warnings);
    let second = refiner.as_ref().and_then(|refiner| find_model(models, &refiner.refiner));
    let painters: Vec<&ModelInfo> = std::iter::once(model).chain(second).collect();
    refuse_unsupported(fields, &painters);
    let prompts = take_prompts(fields, model);
    let inputs = InputPictures {
        image: fields.take("image", InputPicture::parse),
        mask_image: fields.take("mask_image", InputPicture::parse),
    };
    check_task(fields, model, inputs.image.is_some());
    let (width, height) = take_size(fields, (model, second), inputs.image.as_ref());
    let steps = integer(u64::from(*STEPS.start()), u64::from(*STEPS.end()));
    let num_inference_steps = fields.take("num_inference_steps", steps).map_or(model.default_num_inference_steps, small);
    let num_images = fields.take("num_images", integer(1, MAX_IMAGES)).map_or(1, small);
    let inpainting = take_inpainting(fields, &inputs, &mut warnings);
    let img2img = match model.can(Task::InstructPix2pix) {
        true => take_instruction(fields, model, inputs.image.as_ref()),
        false => take_img2img(fields, &inputs, num_inference_steps, &mut warnings),
    };
    let guidance = take_guidance(fields, model, &mut warnings);
    let output = take_output(fields, &mut warnings);
    let (scheduler, eta) = take_scheduler(fields, (model, second), num_inference_steps, &mut warnings);
    let request = GenerationRequest {
        model: model.name.clone(),
        negative_prompt: prompts.negative_prompt,
        prompt_syntax: prompts.syntax,
        clip_skip: prompts.clip_skip,
        width,
        height,
        num_inference_steps,
        guidance_scale: guidance.scale,
        guidance_rescale: guidance.rescale,
        guidance_interval: guidance.interval,
        cache_interval: fields.take("cache_interval", parse_cache_interval).unwrap_or_else(every_call),
        fp8_linears: fields.take("fp8_linears", boolean).unwrap_or(false),
        scheduler,
        eta,
        seed: fields.take("seed", parse_seed(num_images)).unwrap_or(random_seed),
        noise_source: fields.take("noise_source", NoiseSource::parse).unwrap_or_default(),
        num_images,
        img2img,
        inpainting,
        image_guidance_scale: take_image_guidance_scale(fields, (model, guidance.scale), &mut warnings),
        sizes: take_sizes(fields, &painters, (width, height)),
        aesthetics: take_scores(fields, &painters),
        refiner,
        preview_every: fields.take("preview_every", integer(0, 150)).map_or(1, small),
        output,
        priority: fields.take("priority", integer(0, MAX_PRIORITY)).map_or(DEFAULT_PRIORITY, |priority| priority as u8),
        deadline_seconds: fields.take("deadline_seconds", parse_deadline).flatten(),
        metadata: fields.take("metadata", parse_metadata).unwrap_or_default(),
        prompt: prompts.prompt?,
    };
    check_prompts(fields, &request);
    Some(Submission { request, inputs, warnings })
}

/// A number that a range check has bounded far below `u32::MAX`.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
