//! `easel inspect`: what a file or a folder is.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    ModelFiles, ON_DEVICE,
    kind::FileKind,
    original::UNET_EMA,
    part::Part,
    pickle, stem,
    stored::{MappedFile, Tensors},
};
use crate::{
    diffusion::{error::LoadError, pipeline::ModelIndex},
    domain::Family,
};

/// What says on what an adapter, or a checkpoint, was made: of the ModelSpec, and of kohya's trainers.
const BASES: [&str; 3] = ["modelspec.architecture", "ss_base_model_version", "ss_sd_model_name"];

/// What a file or a folder is.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// `folder` or `file`.
    pub layout: &'static str,
    /// What it is, for people.
    pub description: String,
    /// What a file's keys show; none for a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<FileKind>,
    /// Whether it changes a model instead of being one.
    pub is_adapter: bool,
    /// The family of its UNet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// diffusers' class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// What the UNet was trained to predict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<String>,
    /// On what it was made, as its metadata says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Whether averaged weights of the UNet are there beside the others.
    pub has_ema: bool,
    /// Its parts; for what is no model, the whole.
    pub parts: Vec<PartInspection>,
    /// The parts that its pipeline needs and that are not there.
    pub missing: Vec<&'static str>,
    /// The size of all tensors, in bytes.
    pub bytes: u64,
}

/// A part of a model.
#[derive(Debug, Serialize)]
pub struct PartInspection {
    /// Its name in diffusers.
    pub name: String,
    /// Its dtypes, as safetensors names them.
    pub dtypes: BTreeSet<String>,
    /// How many tensors it has.
    pub tensors: usize,
    /// How many numbers.
    pub parameters: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Looks at a file or a folder; no weights are read.
///
/// # Errors
/// When it cannot be read, or is neither a safetensors file nor a folder with a model or a part of one.
pub fn inspect(path: &Path) -> Result<Inspection, LoadError> {
    pickle::refuse(path)?;
    if path.is_dir() {
        return if path.join(super::INDEX).is_file() { model(path, None) } else { part_folder(path) };
    }
    let file = MappedFile::open(path)?;
    let tensors: Tensors = file.tensors().collect();
    let kind = FileKind::of(&tensors);
    let base = BASES.iter().find_map(|key| file.metadata().get(*key)).cloned();
    if kind == FileKind::Checkpoint {
        let found = model(path, Some(kind))?;
        let has_ema = tensors.keys().any(|key| key.starts_with(UNET_EMA));
        return Ok(Inspection { base, has_ema, ..found });
    }
    let parts = vec![part("all", tensors.values())];
    Ok(Inspection { base, ..plain("file", kind.to_string(), Some(kind), parts) })
}

fn model(path: &Path, kind: Option<FileKind>) -> Result<Inspection, LoadError> {
    let files = ModelFiles::open(path)?;
    let mut parts = Vec::new();
    for name in ON_DEVICE.into_iter().filter(|part| files.has(part)) {
        let tensors = files.part(name)?.tensors(stem(name))?;
        parts.push(part(name, tensors.iter().map(|(_, tensor)| tensor)));
    }
    let pipeline = files.index.get("_class_name").and_then(Value::as_str).unwrap_or("a model").to_owned();
    // What Easel cannot serve is described as far as it can be.
    let family = files.family().ok();
    let description = family.map_or_else(|| pipeline.clone(), |family| format!("{family} ({pipeline})"));
    let needed = ModelIndex::read(&files).map(|index| index.parts()).unwrap_or_default();
    let missing = needed.into_iter().filter(|part| !files.has(part)).collect();
    let layout = if path.is_dir() { "folder" } else { "file" };
    let found = plain(layout, description, kind, parts);
    Ok(Inspection { family, pipeline: Some(pipeline), prediction_type: prediction_type(&files), missing, ..found })
}

/// What the scheduler's config says; diffusers takes one that says nothing for epsilon.
fn prediction_type(files: &ModelFiles) -> Option<String> {
    let scheduler: Map<String, Value> = files.config("scheduler", &[]).ok()?;
    Some(scheduler.get("prediction_type").and_then(Value::as_str).unwrap_or("epsilon").to_owned())
}

/// A folder with the weights of one part, such as a VAE.
fn part_folder(path: &Path) -> Result<Inspection, LoadError> {
    let folder = Part::Folder(path.to_owned());
    let neither = || folder.invalid("", "neither a model nor a part of one: there is no model_index.json and no config.json");
    let config: Value = serde_json::from_str(&folder.text("config.json")?.ok_or_else(neither)?).unwrap_or_default();
    let class = config["_class_name"].as_str().or(config["architectures"][0].as_str());
    let has_unets_name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("diffusion_pytorch_model");
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let is_diffusers = fs::read_dir(path).map_err(io)?.filter_map(Result::ok).any(has_unets_name);
    let tensors = folder.tensors(stem(if is_diffusers { "unet" } else { "text_encoder" }))?;
    let parts = vec![part("all", tensors.iter().map(|(_, tensor)| tensor))];
    Ok(plain("folder", class.unwrap_or("a part of a model").to_owned(), None, parts))
}

fn plain(layout: &'static str, description: String, kind: Option<FileKind>, parts: Vec<PartInspection>) -> Inspection {
    let bytes = parts.iter().map(|part| part.bytes).sum();
    let is_adapter = kind.is_some_and(FileKind::is_adapter);
    Inspection {
        layout,
        description,
        kind,
        is_adapter,
        family: None,
        pipeline: None,
        prediction_type: None,
        base: None,
        has_ema: false,
        parts,
        missing: Vec::new(),
        bytes,
    }
}

fn part<'a>(name: &str, tensors: impl Iterator<Item = &'a super::StoredTensor>) -> PartInspection {
    let mut part = PartInspection { name: name.to_owned(), dtypes: BTreeSet::new(), tensors: 0, parameters: 0, bytes: 0 };
    for tensor in tensors {
        part.dtypes.insert(format!("{:?}", tensor.dtype()));
        part.tensors += 1;
        part.parameters += tensor.shape().iter().product::<usize>() as u64;
        part.bytes += tensor.len() as u64;
    }
    part
}
