//! The families of published checkpoints, and the configs that their files leave out.

use serde_json::{Map, Value, json};

use super::{shapes, stored::Tensors};
use crate::diffusion::schedulers::PredictionType;

/// A part of a pipeline: its name, its library and its class.
type PartClass = (&'static str, &'static str, &'static str);

const TEXT_ENCODER: PartClass = ("text_encoder", "transformers", "CLIPTextModel");
const TOKENIZER: PartClass = ("tokenizer", "transformers", "CLIPTokenizer");
const TEXT_ENCODER_2: PartClass = ("text_encoder_2", "transformers", "CLIPTextModelWithProjection");
const TOKENIZER_2: PartClass = ("tokenizer_2", "transformers", "CLIPTokenizer");

/// A family whose checkpoints were published as single files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    StableDiffusion1,
    StableDiffusion2,
    StableDiffusionXl,
    StableDiffusionXlRefiner,
}

impl Published {
    /// The family of a UNet, in diffusers' names. Stable Diffusion XL takes a pooled text; the refiner attends to its second encoder alone.
    pub(super) fn of_unet(unet: &Tensors) -> Self {
        let attended = shapes::attended_channels(unet);
        let is_linear = shapes::has_linear_projections(unet);
        match (unet.contains_key("add_embedding.linear_1.weight"), attended) {
            (true, Some(1280)) => Self::StableDiffusionXlRefiner,
            (true, _) => Self::StableDiffusionXl,
            (false, _) if is_linear => Self::StableDiffusion2,
            (false, _) => Self::StableDiffusion1,
        }
    }

    /// Whether it is of Stable Diffusion XL's kind.
    fn is_xl(self) -> bool {
        matches!(self, Self::StableDiffusionXl | Self::StableDiffusionXlRefiner)
    }

    /// The published side of the latents. Those of Stable Diffusion 2 that predict the velocity were trained on larger pictures.
    pub(super) fn sample_size(self, prediction_type: PredictionType) -> u32 {
        match self {
            Self::StableDiffusion2 if prediction_type == PredictionType::VPrediction => 96,
            Self::StableDiffusion1 | Self::StableDiffusion2 => 64,
            Self::StableDiffusionXl | Self::StableDiffusionXlRefiner => 128,
        }
    }

    /// The published scale of the latents.
    pub(super) fn scaling_factor(self) -> f64 {
        if self.is_xl() { 0.13025 } else { 0.18215 }
    }

    /// The parts that read text.
    fn text_parts(self) -> &'static [PartClass] {
        match self {
            Self::StableDiffusion1 | Self::StableDiffusion2 => &[TOKENIZER, TEXT_ENCODER],
            Self::StableDiffusionXl => &[TOKENIZER, TEXT_ENCODER, TOKENIZER_2, TEXT_ENCODER_2],
            Self::StableDiffusionXlRefiner => &[TOKENIZER_2, TEXT_ENCODER_2],
        }
    }

    /// What fills a text up in each of its tokenizers: OpenAI's CLIP was trained with its last token, OpenCLIP with zeros, which are "!".
    pub(super) fn tokenizers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::StableDiffusion1 => &[("tokenizer", "<|endoftext|>")],
            Self::StableDiffusion2 => &[("tokenizer", "!")],
            Self::StableDiffusionXl => &[("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")],
            Self::StableDiffusionXlRefiner => &[("tokenizer_2", "!")],
        }
    }

    /// `model_index.json`; the UNet's input channels tell inpainting (9) and InstructPix2Pix (8).
    pub(super) fn index(self, in_channels: usize, scheduler: &Value) -> Map<String, Value> {
        let class = match (self, in_channels) {
            (Self::StableDiffusion1 | Self::StableDiffusion2, 9) => "StableDiffusionInpaintPipeline",
            (Self::StableDiffusion1 | Self::StableDiffusion2, 8) => "StableDiffusionInstructPix2PixPipeline",
            (Self::StableDiffusion1 | Self::StableDiffusion2, _) => "StableDiffusionPipeline",
            (Self::StableDiffusionXl | Self::StableDiffusionXlRefiner, 9) => "StableDiffusionXLInpaintPipeline",
            (Self::StableDiffusionXl, 8) => "StableDiffusionXLInstructPix2PixPipeline",
            (Self::StableDiffusionXl, _) => "StableDiffusionXLPipeline",
            (Self::StableDiffusionXlRefiner, _) => "StableDiffusionXLImg2ImgPipeline",
        };
        let mut index = Map::from_iter([
            ("_class_name".to_owned(), json!(class)),
            ("unet".to_owned(), json!(["diffusers", "UNet2DConditionModel"])),
            ("vae".to_owned(), json!(["diffusers", "AutoencoderKL"])),
            ("scheduler".to_owned(), json!(["diffusers", scheduler["_class_name"]])),
        ]);
        index.extend(self.text_parts().iter().map(|(part, library, class)| ((*part).to_owned(), json!([library, class]))));
        match self {
            Self::StableDiffusion1 | Self::StableDiffusion2 => {
                index.extend(["safety_checker", "feature_extractor"].map(|part| (part.to_owned(), json!([null, null]))));
                index.insert("requires_safety_checker".to_owned(), json!(false));
            }
            Self::StableDiffusionXl => drop(index.insert("force_zeros_for_empty_prompt".to_owned(), json!(true))),
            Self::StableDiffusionXlRefiner => {
                index.extend(["text_encoder", "tokenizer"].map(|part| (part.to_owned(), json!([null, null]))));
                index.insert("force_zeros_for_empty_prompt".to_owned(), json!(false));
                index.insert("requires_aesthetics_score".to_owned(), json!(true));
            }
        }
        index
    }

    /// `scheduler_config.json`, as published with each.
    pub(super) fn scheduler(self, prediction_type: PredictionType, zero_terminal_snr: bool) -> Value {
        let mut config = json!({
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "prediction_type": prediction_type.name(),
            "steps_offset": 1,
            "timestep_spacing": "leading",
        });
        let own = match self {
            Self::StableDiffusion1 => {
                json!({"_class_name": "PNDMScheduler", "skip_prk_steps": true, "set_alpha_to_one": false, "clip_sample": false})
            }
            Self::StableDiffusion2 => json!({"_class_name": "DDIMScheduler", "set_alpha_to_one": false, "clip_sample": false}),
            Self::StableDiffusionXl | Self::StableDiffusionXlRefiner => {
                json!({"_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear"})
            }
        };
        merge(&mut config, own);
        if zero_terminal_snr {
            // PNDM and some others know no zero terminal SNR; DDIM does.
            merge(
                &mut config,
                json!({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "set_alpha_to_one": false, "clip_sample": false}),
            );
        }
        config
    }
}

fn merge(config: &mut Value, own: Value) {
    if let (Value::Object(config), Value::Object(own)) = (config, own) {
        config.extend(own);
    }
}
