//! A request to paint, parsed: a [`GenerationRequest`] that exists is legal for its model.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Encoding, FieldError, InputPicture, ModelInfo, PictureFormat, PictureRef, QUALITIES, SchedulerName,
    fields::{Fields, describe, integer, number, text, whole},
    find_model,
};

/// The largest seed: the largest whole number that every JSON reader keeps exactly (2^53 - 1).
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// The largest seed to choose for a request that names none: leaves room for the seeds of all its pictures.
pub const MAX_RANDOM_SEED: u64 = MAX_SEED - (MAX_IMAGES - 1);
/// The guidance scales that a request may name.
pub const GUIDANCE_SCALES: RangeInclusive<f64> = 0.0..=50.0;
const MAX_IMAGES: u64 = 16;
const MAX_PROMPT_CHARS: usize = 10_000;
const MAX_METADATA_ENTRIES: usize = 16;
const MAX_METADATA_CHARS: usize = 1_000;
const DEFAULT_STRENGTH: f64 = 0.8;
const MAX_PRIORITY: u64 = 9;
const DEFAULT_PRIORITY: u8 = 5;

/// What to paint. Field names and ranges are those of the native API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationRequest {
    /// The model's name.
    pub model: String,
    /// What the picture should show.
    pub prompt: String,
    /// What it should not show; `None` is diffusers' `None`, which an empty text is not for every model.
    pub negative_prompt: Option<String>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Denoising steps asked for.
    pub num_inference_steps: u32,
    /// Classifier-free guidance; 1 or less turns it off.
    pub guidance_scale: f64,
    /// The noise scheduler.
    pub scheduler: SchedulerName,
    /// Image `i` uses `seed + i`.
    pub seed: u64,
    /// How many pictures.
    pub num_images: u32,
    /// The picture to start from, and how far to leave it.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub img2img: Option<Img2Img>,
    /// Steps between previews; 0 is none.
    pub preview_every: u32,
    /// How the pictures become files. Jobs of versions that wrote PNG only do not have it.
    #[serde(flatten)]
    pub output: Encoding,
    /// How urgent it is: 0 to 9, 9 first.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// The client's own notes, given back unread.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// The part of a request that makes it img2img.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Img2Img {
    /// The picture to start from.
    pub image: PictureRef,
    /// The share of the steps to run, 0 to 1.
    pub strength: f64,
}

/// A parsed request with the bytes that it refers to and what the client should be told about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The request.
    pub request: GenerationRequest,
    /// The picture that came with it.
    pub input: Option<InputPicture>,
    /// Remarks that are no errors.
    pub warnings: Vec<String>,
}

impl GenerationRequest {
    /// The seed of picture `index`.
    pub fn image_seed(&self, index: u32) -> u64 {
        self.seed + u64::from(index)
    }

    /// The steps that are really run: all for text2img, ⌊strength × steps⌋ for img2img, as in diffusers'
    /// `StableDiffusionImg2ImgPipeline.get_timesteps`.
    pub fn effective_steps(&self) -> u32 {
        match &self.img2img {
            None => self.num_inference_steps,
            Some(img2img) => strength_steps(img2img.strength, self.num_inference_steps),
        }
    }

    /// Classifier-free guidance is on above 1, as in diffusers.
    pub fn uses_guidance(&self) -> bool {
        self.guidance_scale > 1.0
    }
}

/// The priority of requests that were stored before there were priorities.
fn default_priority() -> u8 {
    DEFAULT_PRIORITY
}

fn strength_steps(strength: f64, num_inference_steps: u32) -> u32 {
    // The product is at most the number of steps, so the cast keeps it whole.
    ((strength * f64::from(num_inference_steps)).floor() as u32).min(num_inference_steps)
}

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
        let parsed = model.and_then(|model| parse_for(&mut fields, model, random_seed));
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

fn parse_for(fields: &mut Fields, model: &ModelInfo, random_seed: u64) -> Option<Submission> {
    let prompt = fields.take("prompt", text(MAX_PROMPT_CHARS));
    if prompt.is_none() && !fields.failed("prompt") {
        fields.fail("prompt", "is required");
    }
    let negative_prompt = fields.take("negative_prompt", |value| match value {
        Value::Null => Ok(None),
        other => text(MAX_PROMPT_CHARS)(other).map(Some),
    });
    let input = fields.take("image", InputPicture::parse);
    let (width, height) = take_size(fields, model, input.as_ref());
    let num_inference_steps = fields.take("num_inference_steps", integer(1, 150)).map_or(25, small);
    let num_images = fields.take("num_images", integer(1, MAX_IMAGES)).map_or(1, small);
    let mut warnings = Vec::new();
    let img2img = take_img2img(fields, input.as_ref(), num_inference_steps, &mut warnings);
    let output = take_output(fields, &mut warnings);
    let request = GenerationRequest {
        model: model.name.clone(),
        negative_prompt: negative_prompt.flatten(),
        width,
        height,
        num_inference_steps,
        guidance_scale: fields
            .take("guidance_scale", number(*GUIDANCE_SCALES.start(), *GUIDANCE_SCALES.end()))
            .unwrap_or(model.default_guidance_scale),
        scheduler: fields.take("scheduler", parse_scheduler).unwrap_or(model.default_scheduler),
        seed: fields.take("seed", parse_seed(num_images)).unwrap_or(random_seed),
        num_images,
        img2img,
        preview_every: fields.take("preview_every", integer(0, 150)).map_or(1, small),
        output,
        priority: fields.take("priority", integer(0, MAX_PRIORITY)).map_or(DEFAULT_PRIORITY, |priority| priority as u8),
        metadata: fields.take("metadata", parse_metadata).unwrap_or_default(),
        prompt: prompt?,
    };
    Some(Submission { request, input, warnings })
}

/// The last picture's seed must be a legal seed too.
fn parse_seed(num_images: u32) -> impl Fn(Value) -> Result<u64, String> {
    integer(0, MAX_SEED - u64::from(num_images - 1))
}

/// Width and height; those that are not given are the picture's, fitted to the model's grid, or else the model's own.
fn take_size(fields: &mut Fields, model: &ModelInfo, input: Option<&InputPicture>) -> (u32, u32) {
    let (width, height) = match input {
        Some(input) => fitted_size(model, &input.reference),
        None => (model.default_width, model.default_height),
    };
    let side = |value| parse_side(&value, model);
    (fields.take("width", side).unwrap_or(width), fields.take("height", side).unwrap_or(height))
}

/// The picture's size on the model's grid; a picture larger than the model allows is made smaller in proportion.
fn fitted_size(model: &ModelInfo, picture: &PictureRef) -> (u32, u32) {
    let longest = picture.width.max(picture.height).max(model.max_size);
    let scaled = |side: u32| (u64::from(side) * u64::from(model.max_size) / u64::from(longest)) as u32;
    (model.fit_to_grid(scaled(picture.width)), model.fit_to_grid(scaled(picture.height)))
}

fn parse_side(value: &Value, model: &ModelInfo) -> Result<u32, String> {
    let ModelInfo { size_multiple, min_size, max_size, .. } = model;
    whole(value)
        .and_then(|side| u32::try_from(side).ok())
        .filter(|side| (min_size..=max_size).contains(&side) && side % size_multiple == 0)
        .ok_or_else(|| format!("must be a multiple of {size_multiple} from {min_size} to {max_size}, got {}", describe(value)))
}

fn take_img2img(
    fields: &mut Fields,
    input: Option<&InputPicture>,
    num_inference_steps: u32,
    warnings: &mut Vec<String>,
) -> Option<Img2Img> {
    let given = fields.take("strength", number(0.0, 1.0));
    let Some(input) = input else {
        if given.is_some() && !fields.failed("image") {
            warnings.push("strength has no effect without an image".to_owned());
        }
        return None;
    };
    let strength = given.unwrap_or(DEFAULT_STRENGTH);
    let is_checked = !fields.failed("strength") && !fields.failed("num_inference_steps");
    if is_checked && strength_steps(strength, num_inference_steps) == 0 {
        let smallest = (10_000.0 / f64::from(num_inference_steps)).ceil() / 10_000.0;
        fields.fail(
            "strength",
            format!("{strength} of {num_inference_steps} steps leaves no step to run; the smallest strength is {smallest}"),
        );
    }
    Some(Img2Img { image: input.reference.clone(), strength })
}

fn take_output(fields: &mut Fields, warnings: &mut Vec<String>) -> Encoding {
    let format = fields.take("output_format", parse_format).unwrap_or_default();
    let (worst, best) = (u64::from(*QUALITIES.start()), u64::from(*QUALITIES.end()));
    let quality = fields.take("output_quality", integer(worst, best)).and_then(|quality| u8::try_from(quality).ok());
    if quality.is_some() && format == PictureFormat::Png && !fields.failed("output_format") {
        warnings.push("output_quality has no effect on PNG, which loses nothing".to_owned());
    }
    let default = Encoding::of(format);
    Encoding { quality: quality.unwrap_or(default.quality), ..default }
}

fn parse_format(value: Value) -> Result<PictureFormat, String> {
    value.as_str().and_then(PictureFormat::from_name).ok_or_else(|| {
        let names = PictureFormat::ALL.map(PictureFormat::name);
        format!("must be one of {}; got {}", names.join(", "), describe(&value))
    })
}

fn parse_scheduler(value: Value) -> Result<SchedulerName, String> {
    value.as_str().and_then(SchedulerName::parse).ok_or_else(|| {
        let names: Vec<&str> = SchedulerName::all().map(SchedulerName::as_str).collect();
        format!("must be one of {}; got {}", names.join(", "), describe(&value))
    })
}

fn parse_metadata(value: Value) -> Result<BTreeMap<String, String>, String> {
    let allowed = format!("must be an object of at most {MAX_METADATA_ENTRIES} strings of at most {MAX_METADATA_CHARS} characters");
    let Value::Object(entries) = value else { return Err(format!("{allowed}, got {}", describe(&value))) };
    if entries.len() > MAX_METADATA_ENTRIES {
        return Err(format!("{allowed}, got {} entries", entries.len()));
    }
    metadata_strings(entries).map_err(|problem| format!("{allowed}; {problem}"))
}

fn metadata_strings(entries: Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    entries
        .into_iter()
        .map(|(key, value)| {
            let value = text(MAX_METADATA_CHARS)(value)?;
            text(MAX_METADATA_CHARS)(Value::String(key)).map(|key| (key, value))
        })
        .collect()
}

/// A number that a range check has bounded far below `u32::MAX`.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
