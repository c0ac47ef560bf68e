//! Parts that the settings take from another file or folder than the model's own.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    config_name,
    embedded::EmbeddedConfigs,
    kind::FileKind,
    original::{
        CLIP, OPEN_CLIP, REFINER_OPEN_CLIP, VAE, XL_CLIP, XL_OPEN_CLIP, clip_to_diffusers, open_clip_to_diffusers, without_unused,
    },
    part::Part,
    pickle, place_in, shapes,
    single::{under, vae_of},
    stored::{MappedFile, Tensors},
};
use crate::diffusion::{error::LoadError, schedulers::PredictionType};

/// The parts that can come from elsewhere, which are the names of the settings, too.
pub(super) const PARTS: [&str; 3] = ["vae", "text_encoder", "text_encoder_2"];

/// What the settings say about a model's files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileSettings {
    /// The VAE to take in the place of the model's own: a folder, or a file of either layout.
    pub vae: Option<PathBuf>,
    /// The text encoder to take in the place of the model's own: a folder, or a file of either layout.
    pub text_encoder: Option<PathBuf>,
    /// The same for the second text encoder of Stable Diffusion XL.
    pub text_encoder_2: Option<PathBuf>,
    /// What the model was trained to predict, in the place of what its files say.
    pub prediction_type: Option<PredictionType>,
    /// Whether a single file's averaged UNet is taken.
    pub ema: bool,
}

/// What the files of the model that a part goes into say about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    /// Of the model's own VAE; a VAE's file does not say.
    pub(super) scaling_factor: f64,
    /// Of the first text encoder; a file in transformers' names does not say.
    pub(super) hidden_act: &'static str,
}

impl FileSettings {
    /// The parts that come from elsewhere.
    ///
    /// # Errors
    /// When a file is not there, or is not such a part.
    pub(super) fn replacements(&self, host: Host) -> Result<Vec<(&'static str, Part)>, LoadError> {
        let mut parts = Vec::new();
        if let Some(path) = &self.vae {
            parts.push(("vae", open(path, "vae", |file| vae(file, host))?));
        }
        for (part, path) in [("text_encoder", &self.text_encoder), ("text_encoder_2", &self.text_encoder_2)] {
            if let Some(path) = path {
                parts.push((part, open(path, part, |file| text_encoder(file, part, host))?));
            }
        }
        Ok(parts)
    }
}

/// What `model_index.json` says of such a part.
pub(super) fn class(part: &str) -> Value {
    match part {
        "vae" => json!(["diffusers", "AutoencoderKL"]),
        "text_encoder_2" => json!(["transformers", "CLIPTextModelWithProjection"]),
        _ => json!(["transformers", "CLIPTextModel"]),
    }
}

/// A part in diffusers' names, and its config.
type Found = Result<(Tensors, Value), String>;

fn open(path: &Path, part: &str, read: impl Fn(&Tensors) -> Found) -> Result<Part, LoadError> {
    if path.is_dir() {
        // The part's own folder, or that of a whole model.
        let inner = path.join(part);
        return Ok(Part::Folder(if inner.join(config_name(part)).is_file() { inner } else { path.to_owned() }));
    }
    pickle::refuse(path)?;
    let file = MappedFile::open(path)?;
    let all: Tensors = file.tensors().collect();
    let invalid = |problem| LoadError::Invalid { path: path.to_owned(), problem };
    let (tensors, config) = read(&all).map_err(invalid)?;
    if tensors.is_empty() {
        return Err(invalid(format!("there is no {part} in it; this is {}", FileKind::of(&all))));
    }
    // A file that Easel wrote says how the part is built.
    let mut texts = EmbeddedConfigs::read(file.metadata()).map_err(invalid)?.texts_of(&format!("{part}/"));
    texts.entry(config_name(part).to_owned()).or_insert_with(|| config.to_string());
    Ok(Part::mapped(place_in(path, part), texts, tensors))
}

fn vae(file: &Tensors, host: Host) -> Found {
    let prefixed = under(file, &VAE);
    let bare = || if FileKind::of(file) == FileKind::Vae { file.clone() } else { Tensors::new() };
    let tensors = vae_of(if prefixed.is_empty() { bare() } else { prefixed });
    let config = shapes::vae_config(&tensors, host.scaling_factor);
    Ok((tensors, config))
}

fn text_encoder(file: &Tensors, part: &str, host: Host) -> Found {
    let (clip, open_clip): (&[&str], &[&str]) = match part {
        "text_encoder" => (&[CLIP, XL_CLIP], &[OPEN_CLIP]),
        _ => (&[], &[XL_OPEN_CLIP, REFINER_OPEN_CLIP]),
    };
    let mut tensors = clip_to_diffusers(under(file, clip));
    let mut hidden_act = "quick_gelu";
    if tensors.is_empty() {
        let bare = || if file.keys().any(|key| key.starts_with("transformer.resblocks.")) { file.clone() } else { Tensors::new() };
        let found = under(file, open_clip);
        tensors = open_clip_to_diffusers(if found.is_empty() { bare() } else { found })?;
        if part == "text_encoder" {
            tensors = without_unused(tensors, None);
        }
        hidden_act = "gelu";
    }
    if tensors.is_empty() && FileKind::of(file) == FileKind::TextEncoder {
        tensors = clip_to_diffusers(file.clone());
        hidden_act = if part == "text_encoder" { host.hidden_act } else { "gelu" };
    }
    let config = shapes::text_config(&tensors, hidden_act);
    Ok((tensors, config))
}
