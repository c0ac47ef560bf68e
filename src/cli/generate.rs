//! `easel generate`: paints in this process, with a progress bar.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{CliError, output::Output, paint, request};
use crate::{
    app,
    config::Config,
    diffusion::{ResidencySettings, describe_models},
};

/// What to paint. The rules, defaults and errors are those of the API's `POST /v1/generate`.
#[derive(Debug, Args)]
#[allow(clippy::missing_docs_in_private_items, reason = "the docstrings are the help's text")]
pub(super) struct GenerateArgs {
    /// What the picture should show; a model that takes no text does without
    pub(super) prompt: Option<String>,
    /// The file to write; several pictures are numbered: house-0.png, house-1.png, … [default: easel.png]
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// png, jpeg or webp [default: as FILE ends, else png]
    #[arg(long, value_name = "FORMAT")]
    pub(super) output_format: Option<String>,
    /// Of JPEG and WebP files, 1 to 100; WebP of 100 is lossless [default: 90]
    #[arg(long, value_name = "QUALITY", value_parser = number, allow_negative_numbers = true)]
    pub(super) output_quality: Option<Value>,
    /// One of `easel models` [default: the first]
    #[arg(long)]
    pub(super) model: Option<String>,
    /// What it should not show
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) negative_prompt: Option<String>,
    /// Pixels [default: the model's own, or the picture's]
    #[arg(long, value_parser = number, allow_negative_numbers = true)]
    pub(super) width: Option<Value>,
    /// Pixels [default: the model's own, or the picture's]
    #[arg(long, value_parser = number, allow_negative_numbers = true)]
    pub(super) height: Option<Value>,
    /// Denoising steps, 1 to 150 [default: the model's, mostly 25]
    #[arg(long, value_parser = number, allow_negative_numbers = true)]
    pub(super) steps: Option<Value>,
    /// How closely to follow the prompt, 0 to 50; 1 or less turns guidance off [default: the model's]
    #[arg(long, value_name = "SCALE", value_parser = number, allow_negative_numbers = true)]
    pub(super) guidance_scale: Option<Value>,
    /// Such as ddim, euler or dpmpp_2m_karras [default: the model's]
    #[arg(long, value_name = "NAME")]
    pub(super) scheduler: Option<String>,
    /// The same seed paints the same picture; picture i uses seed + i [default: random]
    #[arg(long, value_parser = number, allow_negative_numbers = true)]
    pub(super) seed: Option<Value>,
    /// What the seed is a seed of: cpu, as for diffusers and ComfyUI, or philox, as for AUTOMATIC1111 on a GPU [default: cpu]
    #[arg(long, value_name = "SOURCE")]
    pub(super) noise_source: Option<String>,
    /// How many pictures, 1 to 16 [default: 1]
    #[arg(short, long, value_name = "COUNT", value_parser = number, allow_negative_numbers = true)]
    pub(super) num_images: Option<Value>,
    /// A PNG, JPEG or WebP file to start from
    #[arg(long, value_name = "FILE")]
    pub(super) image: Option<PathBuf>,
    /// A PNG, JPEG or WebP file whose white is painted anew; the rest of --image stays
    #[arg(long, value_name = "FILE")]
    pub(super) mask_image: Option<PathBuf>,
    /// Radius of the mask's blur in pixels, 0 to 64 [default: 0]
    #[arg(long, value_name = "PIXELS", value_parser = number, allow_negative_numbers = true)]
    pub(super) mask_blur: Option<Value>,
    /// How closely an instruct-pix2pix model follows the picture, 1 to 50 [default: 1.5]
    #[arg(long, value_name = "SCALE", value_parser = number, allow_negative_numbers = true)]
    pub(super) image_guidance_scale: Option<Value>,
    /// How far to leave the picture, 0 to 1 [default: 0.8; with a mask 1]
    #[arg(long, value_parser = number, allow_negative_numbers = true)]
    pub(super) strength: Option<Value>,
    /// Any other field of the API, as JSON or text: --set prompt_syntax=weighted --set clip_skip=2 --set guidance_interval=[0.1,0.8]
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = field)]
    pub(super) fields: Vec<(String, Value)>,
}

pub(super) fn generate(config: &Config, arguments: &GenerateArgs) -> Result<(), CliError> {
    let output = Output::parse(arguments.output.as_deref())?;
    let mut settings = app::engine_settings(config);
    let models = describe_models(&settings.models).map_err(CliError::failed)?;
    let submission = request::parse(arguments, output.format(), &models, config.server.max_body_bytes)?;
    let output = output.of_format(submission.request.output.format)?;
    settings.models.retain(|folder| submission.request.models().contains(&folder.name.as_str()));
    // They are wanted now, and have the device for themselves.
    settings.residency = ResidencySettings::default();
    paint::paint(&settings, &config.dispatch, submission, &output)
}

/// A number as JSON has it, whatever its size: the request's own rules say what is allowed.
fn number(text: &str) -> Result<Value, String> {
    if let Ok(whole) = text.parse::<u64>() {
        return Ok(whole.into());
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Ok(whole.into());
    }
    let float = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    float.map(Value::Number).ok_or_else(|| "not a number".to_owned())
}

/// What is no JSON is a text.
fn field(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("must be FIELD=VALUE, as in clip_skip=2")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_keep_their_value_and_their_kind() {
        assert_eq!(number("9007199254740991"), Ok(json!(9_007_199_254_740_991_u64)));
        assert_eq!(number("-1"), Ok(json!(-1)));
        assert_eq!(number(".5"), Ok(json!(0.5)));
        for bad in ["", "abc", "NaN", "inf", "1e999", "12px"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
