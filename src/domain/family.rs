//! The kinds of models, and what they are asked to do.

use std::fmt;

use serde::Serialize;

/// A model's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Family {
    /// Stable Diffusion 1.x: CLIP ViT-L/14.
    #[serde(rename = "sd1")]
    StableDiffusion1,
    /// Stable Diffusion 2.x: OpenCLIP ViT-H and linear projections.
    #[serde(rename = "sd2")]
    StableDiffusion2,
    /// Stable Diffusion XL: two text encoders, a pooled prompt and sizes.
    #[serde(rename = "sdxl")]
    StableDiffusionXl,
    /// Stable Diffusion XL's refiner: its second text encoder alone, and an aesthetic score.
    #[serde(rename = "sdxl_refiner")]
    StableDiffusionXlRefiner,
    /// Latent diffusion as in its paper: a BERT, trained with the UNet.
    #[serde(rename = "ldm")]
    LatentDiffusion,
    /// A UNet that is told the timestep and nothing else (DDPM), over pixels or latents.
    #[serde(rename = "unconditional")]
    Unconditional,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StableDiffusion1 => "Stable Diffusion 1",
            Self::StableDiffusion2 => "Stable Diffusion 2",
            Self::StableDiffusionXl => "Stable Diffusion XL",
            Self::StableDiffusionXlRefiner => "the refiner of Stable Diffusion XL",
            Self::LatentDiffusion => "latent diffusion",
            Self::Unconditional => "unconditional: it takes no text",
        })
    }
}

/// What a model can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Paint what a prompt says.
    Text2img,
    /// Begin with a picture and leave it as far as `strength` says.
    Img2img,
    /// Paint anew what of a picture a mask covers.
    Inpainting,
    /// Change a picture as the prompt tells (InstructPix2Pix; Brooks et al., 2022).
    InstructPix2pix,
    /// Do the last steps of another model's picture.
    Refiner,
    /// A picture from noise alone.
    Unconditional,
}

impl Task {
    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text2img => "text2img",
            Self::Img2img => "img2img",
            Self::Inpainting => "inpainting",
            Self::InstructPix2pix => "instruct_pix2pix",
            Self::Refiner => "refiner",
            Self::Unconditional => "unconditional",
        }
    }
}
