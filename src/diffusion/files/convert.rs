//! `easel convert`: a single file from a folder, or a folder from a single file.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::{
    FileSettings, INDEX, ModelFiles, clip_vocabulary,
    embedded::{self, EmbeddedConfigs},
    original::{
        CLIP, OPEN_CLIP, REFINER_OPEN_CLIP, UNET, VAE, XL_CLIP, XL_OPEN_CLIP, count, open_clip_names, squeezed,
        unet_names_of_diffusers, vae_names_of_diffusers,
    },
    pickle, shapes, stem,
    stored::{StoredTensor, Tensors},
    write::{Planned, Writing, size, write_file},
};
use crate::diffusion::{
    device::Precision,
    error::LoadError,
    models::{attention, clip},
};

/// The parts that have weights; a safety checker is left out, as Easel runs none.
const PARTS: [&str; 4] = ["unet", "vae", "text_encoder", "text_encoder_2"];
/// Those that have files only.
const TEXT_PARTS: [&str; 3] = ["scheduler", "tokenizer", "tokenizer_2"];
/// In the names of the pipelines whose models have an original layout.
const PIPELINES: [&str; 2] = ["StableDiffusion", "LatentConsistencyModel"];
/// What may stand beside the index.
const EXTRAS: [&str; 1] = ["latent_rgb.json"];

/// How a model is converted.
#[derive(Debug, Default)]
pub struct Conversion {
    /// The dtype of the weights; `Auto` leaves each as it is.
    pub dtype: Precision,
    /// The model's own files, and those in their place.
    pub files: FileSettings,
}

/// Writes the model at `source` to `target`: a file of the original layout where that ends in `.safetensors`, else a folder in diffusers layout.
/// `progress` hears how many bytes are written, and of how many.
///
/// # Errors
/// When the source is no such model, when the target is there already or cannot be written. Nothing is left behind then.
pub fn convert(source: &Path, target: &Path, how: &Conversion, progress: &mut dyn FnMut(u64, u64)) -> Result<(), LoadError> {
    if target.symlink_metadata().is_ok() {
        return Err(LoadError::Invalid { path: target.to_owned(), problem: "is there already; nothing is overwritten".to_owned() });
    }
    pickle::refuse(target)?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(LoadError::Invalid { path: folder.to_owned(), problem: "there is no such folder".to_owned() });
    }
    let model = Model::open(source, how)?;
    let scratch = Scratch(scratch_name(target)?);
    match target.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
        true => model.write_file(&scratch.0, progress)?,
        false => model.write_folder(&scratch.0, progress)?,
    }
    put(&scratch.0, target).map_err(|source| LoadError::Io { path: target.to_owned(), source })
}

/// Gives a file or folder its name, if nothing has taken that meanwhile.
fn put(scratch: &Path, target: &Path) -> io::Result<()> {
    match renameat_with(CWD, scratch, CWD, target, RenameFlags::NOREPLACE) {
        // Some network filesystems do not know how.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(scratch, target),
        done => Ok(done?),
    }
}

/// The name under which something is written until it is whole.
fn scratch_name(target: &Path) -> Result<PathBuf, LoadError> {
    let unnamed = || LoadError::Invalid { path: target.to_owned(), problem: "has no file name".to_owned() };
    let mut name = target.file_name().ok_or_else(unnamed)?.to_owned();
    name.push(format!(".{}.part", process::id()));
    Ok(target.with_file_name(name))
}

/// Removes what is still there under a temporary name.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Mostly it has its own name by now; what cannot be removed does no harm under this one.
        let _ = if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
    }
}

struct Model {
    files: ModelFiles,
    /// The weights of every part, in diffusers' names.
    parts: Vec<(&'static str, Tensors)>,
    dtype: Option<Dtype>,
}

impl Model {
    fn open(source: &Path, how: &Conversion) -> Result<Self, LoadError> {
        let files = ModelFiles::open_with(source, &how.files)?;
        files.require(&["unet"])?;
        let present = PARTS.into_iter().filter(|part| files.has(part));
        let parts = present.map(|part| Ok((part, diffusers_tensors(&files, part)?))).collect::<Result<Vec<_>, LoadError>>()?;
        let unet = parts.iter().find(|(part, _)| *part == "unet").and_then(|(_, unet)| shapes::attended_channels(unet));
        let class = files.index.get("_class_name").and_then(Value::as_str).unwrap_or_default();
        if unet.is_none() || !PIPELINES.iter().any(|name| class.contains(name)) {
            return Err(
                files.invalid(format!("{class} is none of Stable Diffusion's pipelines, and such models have no single file"))
            );
        }
        let unread = |(name, tensor): (&String, &StoredTensor)| (!tensor.is_weight() && !tensor.is_integer()).then(|| name.clone());
        let unread = parts.iter().flat_map(|(_, tensors)| tensors.iter().filter_map(unread)).next();
        if let Some(name) = unread.filter(|_| !matches!(how.dtype, Precision::Auto)) {
            let problem =
                format!("the tensor {name} has a dtype that cannot be turned into another; without one it is copied as it is");
            return Err(files.invalid(problem));
        }
        let dtype = match how.dtype {
            Precision::Auto => None,
            Precision::Float32 => Some(Dtype::F32),
            Precision::Bfloat16 => Some(Dtype::BF16),
            Precision::Float16 => Some(Dtype::F16),
        };
        Ok(Self { files, parts, dtype })
    }

    /// `model_index.json` without the parts that are left out, which diffusers would look for.
    fn index(&self) -> Value {
        let mut index = self.files.index.clone();
        let is_kept = |part: &str| PARTS.contains(&part) || TEXT_PARTS.contains(&part);
        for (part, class) in &mut index {
            if class.is_array() && !(is_kept(part) && self.files.has(part)) {
                *class = json!([null, null]);
            }
        }
        Value::Object(index)
    }

    fn write_file(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), LoadError> {
        let is_xl = self.files.index.get("_class_name").and_then(Value::as_str).is_some_and(|class| class.contains("XL"));
        let mut tensors = Vec::new();
        for (part, found) in &self.parts {
            match *part {
                "unet" => tensors.extend(original_unet(found)),
                "vae" => tensors.extend(original_vae(found)),
                text => tensors.extend(self.original_text(text, found, is_xl)?),
            }
        }
        let total = size(&tensors, self.dtype);
        let mut done = 0;
        let mut progress = |bytes| {
            done += bytes;
            progress(done, total);
        };
        let mut metadata = self.files.metadata.clone();
        metadata.insert(embedded::KEY.to_owned(), self.configs()?.to_text());
        tensors.extend(self.markers(&mut metadata)?);
        write_file(path, tensors, Writing { metadata, dtype: self.dtype, progress: &mut progress })
    }

    /// What tells other programs that the model predicts the velocity and that its noise ends in pure noise: the metadata, and the marker
    /// keys, which are tensors without a value.
    fn markers(&self, metadata: &mut BTreeMap<String, String>) -> Result<Vec<Planned>, LoadError> {
        if !self.files.has("scheduler") {
            return Ok(Vec::new());
        }
        let scheduler: BTreeMap<String, Value> = self.files.config("scheduler", &[])?;
        let says = |key: &str, value: Value| scheduler.get(key) == Some(&value);
        let is_velocity = says("prediction_type", json!("v_prediction"));
        let predicted =
            if is_velocity { "v" } else { scheduler.get("prediction_type").and_then(Value::as_str).unwrap_or("epsilon") };
        metadata.insert("modelspec.prediction_type".to_owned(), predicted.to_owned());
        metadata.remove("modelspec.predict_key");
        let marks = [("v_pred", is_velocity), ("ztsnr", says("rescale_betas_zero_snr", json!(true)))];
        Ok(marks.into_iter().filter(|(_, is_so)| *is_so).map(|(name, _)| Planned::empty(name.to_owned())).collect())
    }

    /// Every config and vocabulary of the model; CLIP's own vocabulary is built in and left out.
    fn configs(&self) -> Result<EmbeddedConfigs, LoadError> {
        let mut configs = EmbeddedConfigs::default();
        configs.keep(INDEX.to_owned(), self.index().to_string());
        for part in PARTS.into_iter().chain(TEXT_PARTS).filter(|part| self.files.has(part)) {
            let texts = self.files.part(part)?.texts()?;
            let is_clip = part.starts_with("tokenizer") && clip_vocabulary::is_in(&texts);
            let is_left_out = |name: &str| is_clip && clip_vocabulary::FILES.contains(&name);
            for (name, text) in texts.into_iter().filter(|(name, _)| !is_left_out(name)) {
                configs.keep(format!("{part}/{name}"), text);
            }
        }
        for name in EXTRAS {
            if let Some(text) = self.files.optional_file(name)? {
                configs.keep(name.to_owned(), text);
            }
        }
        Ok(configs)
    }

    fn write_folder(&self, folder: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), LoadError> {
        let planned: Vec<(&str, Vec<Planned>)> = self
            .parts
            .iter()
            .map(|(part, tensors)| {
                (*part, tensors.iter().map(|(name, tensor)| Planned::one(name.clone(), tensor.clone())).collect())
            })
            .collect();
        let total = planned.iter().map(|(_, tensors)| size(tensors, self.dtype)).sum();
        let mut done = 0;
        let mut progress = |bytes| {
            done += bytes;
            progress(done, total);
        };
        write_text(&folder.join(INDEX), &self.index().to_string())?;
        for name in EXTRAS {
            if let Some(text) = self.files.optional_file(name)? {
                write_text(&folder.join(name), &text)?;
            }
        }
        for part in PARTS.into_iter().chain(TEXT_PARTS).filter(|part| self.files.has(part)) {
            for (name, text) in self.files.part(part)?.texts()? {
                write_text(&folder.join(part).join(name), &text)?;
            }
        }
        for (part, tensors) in planned {
            let path = folder.join(part).join(format!("{}.safetensors", stem(part)));
            let writing = Writing { metadata: BTreeMap::new(), dtype: self.dtype, progress: &mut progress };
            write_file(&path, tensors, writing)?;
        }
        Ok(())
    }

    /// A text encoder under the names that the model's family has for it.
    fn original_text(&self, part: &str, tensors: &Tensors, is_xl: bool) -> Result<Vec<Planned>, LoadError> {
        let config: BTreeMap<String, Value> = self.files.config(part, &[])?;
        // OpenAI's CLIP has the quick form, which is also transformers' default; OpenCLIP has the exact one.
        let is_open_clip = config.get("hidden_act").is_some_and(|act| act != "quick_gelu");
        let prefix = match (part, is_xl) {
            ("text_encoder", true) => XL_CLIP,
            ("text_encoder", false) if is_open_clip => OPEN_CLIP,
            ("text_encoder", false) => CLIP,
            _ if self.files.has("text_encoder") => XL_OPEN_CLIP,
            _ => REFINER_OPEN_CLIP,
        };
        match prefix {
            CLIP | XL_CLIP => Ok(renamed(tensors, |name| format!("{prefix}{name}"))),
            _ => original_open_clip(tensors, prefix).map_err(|problem| self.files.invalid_config(part, problem)),
        }
    }
}

/// A part's weights in the names that diffusers and transformers have now.
fn diffusers_tensors(files: &ModelFiles, part: &str) -> Result<Tensors, LoadError> {
    let found = files.part(part)?;
    let name = |key: &str| match part {
        "unet" => Some(key.to_owned()),
        "vae" => attention::canonical_name(key),
        _ => clip::canonical_name(key)
            .map(|name| if name.starts_with("text_projection") { name } else { format!("text_model.{name}") }),
    };
    let mut tensors = Tensors::new();
    for (key, tensor) in found.tensors(stem(part))? {
        let Some(name) = name(&key) else { continue };
        let tensor = if part == "vae" { squeezed(&name, tensor) } else { tensor };
        if tensors.insert(name, tensor).is_some() {
            return Err(found.invalid("", format!("the tensor {key} is there twice, perhaps under an older name")));
        }
    }
    Ok(tensors)
}

fn renamed(tensors: &Tensors, name: impl Fn(&str) -> String) -> Vec<Planned> {
    tensors.iter().map(|(key, tensor)| Planned::one(name(key), tensor.clone())).collect()
}

fn original_unet(tensors: &Tensors) -> Vec<Planned> {
    let names = unet_names_of_diffusers(tensors.keys().map(String::as_str));
    renamed(tensors, |name| format!("{UNET}{}", names.to_original(name)))
}

/// The VAE, its attention's projections as the 1 × 1 convolutions that they were.
fn original_vae(tensors: &Tensors) -> Vec<Planned> {
    let names = vae_names_of_diffusers(tensors.keys().map(String::as_str));
    let mut planned = renamed(tensors, |name| format!("{}{}", VAE[0], names.to_original(name)));
    for tensor in planned.iter_mut().filter(|tensor| tensor.name.contains(".mid.attn_1.") && tensor.shape.len() == 2) {
        tensor.shape.extend([1, 1]);
    }
    planned
}

/// OpenCLIP keeps the three projections of a layer in one tensor, and multiplies by its text projection from the other side.
fn original_open_clip(tensors: &Tensors, prefix: &str) -> Result<Vec<Planned>, String> {
    const PROJECTIONS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];
    let names = open_clip_names(count(tensors.keys().map(String::as_str), "text_model.encoder.layers."));
    let mut planned = Vec::new();
    for (key, tensor) in tensors {
        let projection = PROJECTIONS.iter().position(|name| key.contains(&format!(".self_attn.{name}.")));
        if key == "text_projection.weight" {
            let turned = tensor.clone().transposed().ok_or("the tensor text_projection.weight is no matrix")?;
            planned.push(Planned::one(format!("{prefix}text_projection"), turned));
        } else if projection == Some(0) {
            let of = |name| tensors.get(&key.replace("q_proj", name)).filter(|other| other.shape() == tensor.shape()).cloned();
            let sources: Option<Vec<_>> = PROJECTIONS.into_iter().map(of).collect();
            let sources = sources.ok_or_else(|| format!("the tensor {key} has no k_proj and v_proj of its shape beside it"))?;
            let mut shape = tensor.shape().to_vec();
            shape.iter_mut().take(1).for_each(|rows| *rows *= PROJECTIONS.len());
            let name = names.to_original(key).replace("attn.q_proj.", "attn.in_proj_");
            planned.push(Planned { name: format!("{prefix}{name}"), shape, sources });
        } else if projection.is_none() {
            planned.push(Planned::one(format!("{prefix}{}", names.to_original(key)), tensor.clone()));
        }
    }
    Ok(planned)
}

/// Writes a text file into a folder that may have to be made; JSON in a form that people read.
fn write_text(path: &Path, text: &str) -> Result<(), LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    // A vocabulary is not read by people.
    let is_config = path.extension().is_some_and(|extension| extension == "json") && text.len() < 1 << 16;
    let pretty = is_config.then(|| serde_json::from_str::<Value>(text).ok()).flatten();
    let pretty = pretty.and_then(|value| serde_json::to_string_pretty(&value).ok()).map(|text| text + "\n");
    fs::write(path, pretty.as_deref().unwrap_or(text)).map_err(io)
}
