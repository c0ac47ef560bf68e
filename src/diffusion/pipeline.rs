//! `model_index.json`: which pipeline a folder is made for, and the parts that it names.

use serde::Deserialize;

use super::{
    error::LoadError,
    files::ModelFiles,
    first_stage::FirstStageParts,
    models::{
        clip::{ClipTextClass, HiddenLayer},
        config::{ClipTextConfig, UNetConfig},
    },
    text_encoder::TextEncoderClass,
    unet::UNetClass,
};
use crate::domain::Family;

/// The pipelines whose parts are a CLIP text encoder, a UNet and a VAE.
const STABLE_DIFFUSION: [&str; 6] = [
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
];
/// Those with Stable Diffusion XL's two text encoders, or the refiner's one.
const STABLE_DIFFUSION_XL: [&str; 4] = [
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
];

/// Latent diffusion as in its paper: BERT, a UNet, and a VQ model or a VAE.
const LATENT_DIFFUSION: &str = "LDMTextToImagePipeline";
/// Without text: a UNet over a VQ model's latents.
const UNCONDITIONAL_LATENT: &str = "LDMPipeline";
/// Without text: a UNet over pixels.
const UNCONDITIONAL: [&str; 3] = ["DDPMPipeline", "DDIMPipeline", "PNDMPipeline"];

/// What `model_index.json` says.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: String,
    /// diffusers' pipelines take an absent one for true.
    #[serde(default = "yes")]
    force_zeros_for_empty_prompt: bool,
    /// CosXL's, whose noise levels are EDM's.
    #[serde(default)]
    is_cosxl_edit: Option<bool>,
    #[serde(default)]
    text_encoder: LibraryAndClass,
    #[serde(default)]
    text_encoder_2: LibraryAndClass,
    #[serde(default)]
    vqvae: LibraryAndClass,
}

/// How the index names a part; of one that a folder does without both are null, or it is absent.
type LibraryAndClass = (Option<String>, Option<String>);

/// A text encoder of a folder and its tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TowerParts {
    pub(super) tokenizer: &'static str,
    pub(super) text_encoder: &'static str,
    pub(super) class: TextEncoderClass,
}

fn yes() -> bool {
    true
}

impl ModelIndex {
    /// Reads a model's index, and refuses pipelines that are not supported.
    pub(super) fn read(files: &ModelFiles) -> Result<Self, LoadError> {
        let index: Self = files.index()?;
        let supported = [&STABLE_DIFFUSION[..], &STABLE_DIFFUSION_XL, &[LATENT_DIFFUSION, UNCONDITIONAL_LATENT], &UNCONDITIONAL];
        let supported = supported.concat();
        let problem = if !supported.contains(&index.class_name.as_str()) {
            format!("{} is not supported; supported: {}", index.class_name, supported.join(", "))
        } else if index.takes_text() && index.towers().is_empty() {
            format!("{} names no text encoder; the model's settings can name one that is elsewhere: text_encoder", index.class_name)
        } else if index.is_cosxl_edit == Some(true) {
            "is_cosxl_edit = true is not supported".to_owned()
        } else {
            return Ok(index);
        };
        Err(files.invalid_index(problem))
    }

    /// Every part that the pipeline needs.
    pub(super) fn parts(&self) -> Vec<&'static str> {
        let texts = self.towers().into_iter().flat_map(|tower| [tower.tokenizer, tower.text_encoder]);
        texts.chain(["unet", "scheduler"]).chain(self.first_stage().part()).collect()
    }

    /// The architecture.
    pub(super) fn family(&self, unet: &UNetConfig) -> Family {
        match (self.is_xl(), self.text_encoder.1.is_some()) {
            _ if self.class_name == LATENT_DIFFUSION => Family::LatentDiffusion,
            (true, true) => Family::StableDiffusionXl,
            (true, false) => Family::StableDiffusionXlRefiner,
            (false, _) if unet.use_linear_projection => Family::StableDiffusion2,
            (false, _) => Family::StableDiffusion1,
        }
    }

    /// Whether the UNet is told an aesthetic score in the place of the target size: its `add_embedding` has room for the pooled prompt and
    /// for 5 numbers, not 6.
    pub(super) fn is_scored(&self, files: &ModelFiles, unet: &UNetConfig) -> Result<bool, LoadError> {
        let refuse = |problem: String| Err(files.invalid_config("unet", problem));
        if unet.addition_embed_type.is_none() == self.is_xl() {
            return refuse(format!("addition_embed_type = {:?} does not fit {}", unet.addition_embed_type, self.class_name));
        }
        let Some(tower) = self.towers().pop().filter(|_| self.is_xl()) else { return Ok(false) };
        let text = ClipTextConfig::read(files, tower.text_encoder)?;
        let room = unet.projection_class_embeddings_input_dim - text.projection_dim;
        match (room / unet.addition_time_embed_dim, room % unet.addition_time_embed_dim) {
            (6, 0) => Ok(false),
            (5, 0) => Ok(true),
            _ => refuse(format!(
                "projection_class_embeddings_input_dim = {} is neither 5 nor 6 times addition_time_embed_dim = {} and projection_dim = {}",
                unet.projection_class_embeddings_input_dim, unet.addition_time_embed_dim, text.projection_dim
            )),
        }
    }

    /// Whether the pooled prompt and the time ids go to the UNet.
    pub(super) fn is_xl(&self) -> bool {
        STABLE_DIFFUSION_XL.contains(&self.class_name.as_str())
    }

    /// Whether diffusers' pipeline puts outdated scheduler configs right, which the other pipelines take as they are.
    pub(super) fn corrects_scheduler(&self) -> bool {
        STABLE_DIFFUSION.contains(&self.class_name.as_str())
    }

    /// Whether it paints what a text says.
    pub(super) fn takes_text(&self) -> bool {
        self.class_name != UNCONDITIONAL_LATENT && !UNCONDITIONAL.contains(&self.class_name.as_str())
    }

    /// The class of its UNet.
    pub(super) fn unet(&self) -> UNetClass {
        if self.takes_text() { UNetClass::Condition } else { UNetClass::Plain }
    }

    /// What is between pixels and its UNet.
    pub(super) fn first_stage(&self) -> FirstStageParts {
        match self.class_name.as_str() {
            LATENT_DIFFUSION | UNCONDITIONAL_LATENT if self.vqvae.1.as_deref() == Some("AutoencoderKL") => {
                FirstStageParts::Kl("vqvae")
            }
            LATENT_DIFFUSION | UNCONDITIONAL_LATENT => FirstStageParts::Vq("vqvae"),
            name if UNCONDITIONAL.contains(&name) => FirstStageParts::Pixels,
            _ => FirstStageParts::Kl("vae"),
        }
    }

    /// The text encoders whose hidden states are put side by side.
    pub(super) fn towers(&self) -> Vec<TowerParts> {
        if self.class_name == LATENT_DIFFUSION {
            return vec![TowerParts { tokenizer: "tokenizer", text_encoder: "bert", class: TextEncoderClass::LdmBert }];
        }
        let first = TowerParts { tokenizer: "tokenizer", text_encoder: "text_encoder", class: text_class(&self.text_encoder) };
        let second =
            TowerParts { tokenizer: "tokenizer_2", text_encoder: "text_encoder_2", class: text_class(&self.text_encoder_2) };
        let mut towers = Vec::new();
        towers.extend(self.text_encoder.1.is_some().then_some(first));
        towers.extend((self.is_xl() && self.text_encoder_2.1.is_some()).then_some(second));
        towers
    }

    /// The hidden state that is the prompt's embedding: the last one after its norm, and in Stable Diffusion XL the penultimate as it is.
    pub(super) fn hidden_layer(&self) -> HiddenLayer {
        if self.is_xl() {
            HiddenLayer { skipped: 1, final_layer_norm: false }
        } else {
            HiddenLayer { skipped: 0, final_layer_norm: true }
        }
    }

    /// Without a negative prompt, guidance leads away from zeros and not from the empty text.
    pub(super) fn zeros_for_no_prompt(&self) -> bool {
        self.is_xl() && self.force_zeros_for_empty_prompt
    }
}

fn text_class((_, class): &LibraryAndClass) -> TextEncoderClass {
    TextEncoderClass::Clip(match class.as_deref() {
        Some("CLIPTextModelWithProjection") => ClipTextClass::WithProjection,
        _ => ClipTextClass::Plain,
    })
}
