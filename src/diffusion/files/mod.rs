//! A model's files behind one door, whatever their layout: configs, tensors and vocabularies by the names that diffusers gives them.

mod clip_vocabulary;
mod convert;
mod embedded;
mod family;
mod header;
mod inspect;
mod json;
mod kind;
mod original;
mod part;
mod pickle;
mod random;
mod replacement;
mod shapes;
mod single;
mod stored;
mod write;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use convert::{Conversion, convert};
pub use inspect::{Inspection, PartInspection, inspect};
pub use kind::FileKind;
pub(super) use part::Part;
pub use random::RandomModel;
pub use replacement::FileSettings;
pub(super) use stored::{Order, StoredTensor};

use self::{family::Published, replacement::Host};
use super::{
    device::Placement,
    error::LoadError,
    layers::FP8_MULTIPLE,
    models::config::UNetConfig,
    pipeline::ModelIndex,
    schedulers::PredictionType,
    tokenizer::ClipTokenizer,
    unet::UNetClass,
    weights::{Alias, Weights},
};
use crate::domain::Family;

/// What says which pipeline a folder holds, and which parts it has.
const INDEX: &str = "model_index.json";

/// The parts with weights that a pipeline uses.
const ON_DEVICE: [&str; 6] = ["text_encoder", "text_encoder_2", "bert", "unet", "vae", "vqvae"];

/// The files of one model.
#[derive(Debug)]
pub(super) struct ModelFiles {
    root: Part,
    index: Map<String, Value>,
    parts: BTreeMap<String, Part>,
    /// What a single file says of itself.
    metadata: BTreeMap<String, String>,
}

impl ModelFiles {
    /// Opens a folder in diffusers layout, or a `.safetensors` file in the original one. No weights are read.
    ///
    /// # Errors
    /// When there is no such model.
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_with(path, &FileSettings::default())
    }

    /// As [`Self::open`], with what the settings say.
    ///
    /// # Errors
    /// When there is no such model, or a part that the settings name is not there.
    pub(super) fn open_with(path: &Path, settings: &FileSettings) -> Result<Self, LoadError> {
        pickle::refuse(path)?;
        let mut files = if path.is_file() { Self::open_file(path, settings)? } else { Self::open_folder(path)? };
        if settings.ema && path.is_dir() {
            return Err(files.invalid("ema = true is for single files, which may have both: a folder has the UNet that it has"));
        }
        if let Some(prediction_type) = settings.prediction_type {
            files.set_prediction_type(prediction_type)?;
        }
        let host = Host { scaling_factor: files.scaling_factor(), hidden_act: files.hidden_act() };
        for (part, replacement) in settings.replacements(host)? {
            files.replace(part, replacement)?;
        }
        Ok(files)
    }

    fn open_file(path: &Path, settings: &FileSettings) -> Result<Self, LoadError> {
        let single::Single { index, parts, texts, metadata } = single::open(path, settings)?;
        let root = Part::mapped(path.to_owned(), texts, stored::Tensors::new());
        Ok(Self { root, index, parts, metadata })
    }

    fn open_folder(path: &Path) -> Result<Self, LoadError> {
        let root = Part::Folder(path.to_owned());
        let text = root.text(INDEX)?;
        let text = text.ok_or_else(|| root.invalid("", format!("not a model in diffusers layout: there is no {INDEX}")))?;
        let index = json::parse_object(&text).map_err(|problem| root.invalid(INDEX, problem))?;
        let mut parts = subfolders(path)?;
        // The oldest models without text have these two beside their index, where diffusers looks for what has no folder.
        for part in ["unet", "scheduler"] {
            if !parts.contains_key(part) && path.join(config_name(part)).is_file() {
                parts.insert(part.to_owned(), Part::Folder(path.to_owned()));
            }
        }
        Ok(Self { parts, root, index, metadata: BTreeMap::new() })
    }

    /// Puts what the settings say in the place of what the scheduler's config says.
    fn set_prediction_type(&mut self, prediction_type: PredictionType) -> Result<(), LoadError> {
        const SCHEDULER: &str = "scheduler";
        let mut config: Map<String, Value> = self.config(SCHEDULER, &[])?;
        config.insert("prediction_type".to_owned(), prediction_type.name().into());
        let texts = [(config_name(SCHEDULER).to_owned(), Value::Object(config).to_string())].into();
        let part = Part::mapped(self.part(SCHEDULER)?.place(""), texts, stored::Tensors::new());
        self.parts.insert(SCHEDULER.to_owned(), part);
        Ok(())
    }

    /// Puts a part from elsewhere in the place of the model's own. An index that said "off" for want of it then says its class.
    fn replace(&mut self, part: &str, replacement: Part) -> Result<(), LoadError> {
        let pipeline = self.index.get("_class_name").and_then(Value::as_str).unwrap_or("its pipeline").to_owned();
        let entry = self.index.get_mut(part);
        let no_such_part = || self.root.invalid("", format!("the settings give it a {part}, which {pipeline} does not have"));
        let entry = entry.ok_or_else(no_such_part)?;
        if is_off(entry) {
            *entry = replacement::class(part);
        }
        self.parts.insert(part.to_owned(), replacement);
        Ok(())
    }

    /// Of the model's own VAE; without one, that of its family.
    fn scaling_factor(&self) -> f64 {
        let own = self.config::<Map<String, Value>>("vae", &[]).ok().and_then(|config| config.get("scaling_factor")?.as_f64());
        let is_xl = self.index.get("_class_name").and_then(Value::as_str).is_some_and(|class| class.contains("XL"));
        own.unwrap_or_else(|| if is_xl { Published::StableDiffusionXl } else { Published::StableDiffusion1 }.scaling_factor())
    }

    /// Of the model's own first text encoder; without one, that of its family: Stable Diffusion 2 has OpenCLIP's.
    fn hidden_act(&self) -> &'static str {
        let own = self.config::<Map<String, Value>>("text_encoder", &[]).ok();
        let own = own.and_then(|config| Some(config.get("hidden_act")?.as_str()? == "quick_gelu"));
        let is_quick = own.unwrap_or_else(|| !matches!(self.family(), Ok(Family::StableDiffusion2)));
        if is_quick { "quick_gelu" } else { "gelu" }
    }

    /// What `model_index.json` says: the pipeline's class, that of every part, and the pipeline's own settings.
    ///
    /// # Errors
    /// When it lacks what every index says.
    pub(super) fn index<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        json::config_of(self.index.clone(), &[]).map_err(|problem| self.invalid_index(problem))
    }

    /// An error about `model_index.json`.
    pub(super) fn invalid_index(&self, problem: impl Into<String>) -> LoadError {
        self.root.invalid(INDEX, problem)
    }

    /// Whether a part is there. An index may say that a folder is not to be used: `[null, null]`.
    pub(super) fn has(&self, part: &str) -> bool {
        self.parts.contains_key(part) && !self.index.get(part).is_some_and(is_off)
    }

    /// Checks that these parts are there.
    ///
    /// # Errors
    /// Names every one that is missing.
    pub(super) fn require(&self, parts: &[&str]) -> Result<(), LoadError> {
        let missing: Vec<&str> = parts.iter().copied().filter(|part| !self.has(part)).collect();
        let from_elsewhere: Vec<&str> = missing.iter().copied().filter(|part| replacement::PARTS.contains(part)).collect();
        let way = match from_elsewhere.is_empty() {
            true => String::new(),
            false => format!("; the model's settings can name a file or a folder that has them: {}", from_elsewhere.join(", ")),
        };
        match missing.is_empty() {
            true => Ok(()),
            false => Err(self.invalid(format!("these parts are missing: {}{way}", missing.join(", ")))),
        }
    }

    /// The architecture, as the index and the UNet's config tell.
    ///
    /// # Errors
    /// When the pipeline is not supported, or the config is not what it should be.
    fn family(&self) -> Result<Family, LoadError> {
        let index = ModelIndex::read(self)?;
        match index.unet() {
            UNetClass::Condition => Ok(index.family(&UNetConfig::read(self)?)),
            UNetClass::Plain => Ok(Family::Unconditional),
        }
    }

    /// An error about the model as a whole.
    pub(super) fn invalid(&self, problem: impl Into<String>) -> LoadError {
        self.root.invalid("", problem)
    }

    /// An error about a part's config.
    pub(super) fn invalid_config(&self, part: &str, problem: impl Into<String>) -> LoadError {
        match self.parts.get(part) {
            Some(found) => found.invalid(config_name(part), problem),
            None => self.root.invalid(part, problem),
        }
    }

    /// A part's config. Values that are not supported are refused: `(key, what is supported)`, an absent key being fine.
    ///
    /// # Errors
    /// When the part or its config is not there, or cannot be honoured.
    pub(super) fn config<T: DeserializeOwned>(&self, part: &str, supported: &[(&str, &[Value])]) -> Result<T, LoadError> {
        let invalid = |problem| self.invalid_config(part, problem);
        let text = self.part(part)?.text(config_name(part))?.ok_or_else(|| invalid("there is no such file".to_owned()))?;
        json::parse_object(&text).and_then(|object| json::config_of(object, supported)).map_err(invalid)
    }

    /// A part's tensors by the names that our modules use.
    ///
    /// # Errors
    /// When there are none, or a file is not what it should be.
    pub(super) fn weights(&self, part: &str, alias: Alias, placement: Placement) -> Result<Weights, LoadError> {
        let found = self.part(part)?;
        if let Part::Random { .. } = found {
            return Weights::random(found.place(""), placement);
        }
        Ok(Weights::new(found.place(""), found.tensors(stem(part))?, alias, placement))
    }

    /// How many numbers all tensors of the parts that go to a device have together, as the headers of the files tell.
    ///
    /// # Errors
    /// When a file is not what it should be, such as shorter than its header says.
    pub(super) fn weights_len(&self) -> Result<u64, LoadError> {
        let mut values = 0_u64;
        for part in ON_DEVICE.into_iter().filter(|part| self.has(part)) {
            let part_of_model = self.part(part)?;
            if let Part::Random { weights, .. } = part_of_model {
                values = values.saturating_add(*weights);
            }
            let sizes = part_of_model.tensors(stem(part))?;
            let sizes = sizes.iter().map(|(_, tensor)| tensor.shape().iter().map(|&side| side as u64).product::<u64>());
            values = sizes.fold(values, u64::saturating_add);
        }
        Ok(values)
    }

    /// How many of them are a UNet's transformers' and have a second form in fp8, for whoever asks for that. Their scales are not counted:
    /// less than a hundredth.
    ///
    /// # Errors
    /// As [`Self::weights_len`].
    pub(super) fn fp8_len(&self) -> Result<u64, LoadError> {
        let sides =
            |tensor: &StoredTensor| <[u64; 2]>::try_from(tensor.shape().iter().map(|&side| side as u64).collect::<Vec<_>>());
        let tensors = self.part("unet")?.tensors(stem("unet"))?;
        let linears = tensors.iter().filter(|(name, _)| has_fp8_form(name)).filter_map(|(_, tensor)| sides(tensor).ok());
        let fitting = linears.filter(|sides| sides.iter().all(|side| side % FP8_MULTIPLE as u64 == 0));
        Ok(fitting.map(|[outputs, inputs]| outputs.saturating_mul(inputs)).fold(0, u64::saturating_add))
    }

    /// CLIP's tokenizer from the part `tokenizer` or `tokenizer_2`.
    ///
    /// # Errors
    /// When it is not there, or is not CLIP's.
    pub(super) fn tokenizer(&self, part: &str) -> Result<ClipTokenizer, LoadError> {
        ClipTokenizer::from_part(self.part(part)?)
    }

    /// BERT's tokenizer from the part `tokenizer`.
    ///
    /// # Errors
    /// When it is not there, or is not BERT's.
    pub(super) fn bert_tokenizer(&self, part: &str) -> Result<ClipTokenizer, LoadError> {
        ClipTokenizer::bert_from_part(self.part(part)?)
    }

    /// A text file beside the index that a model may have, such as `latent_rgb.json`.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn optional_file(&self, name: &str) -> Result<Option<String>, LoadError> {
        self.root.text(name)
    }

    /// An error about a file beside the index.
    pub(super) fn invalid_file(&self, name: &str, problem: impl Into<String>) -> LoadError {
        self.root.invalid(name, problem)
    }

    fn part(&self, part: &str) -> Result<&Part, LoadError> {
        self.parts.get(part).ok_or_else(|| self.root.invalid("", format!("the part {part} is missing")))
    }
}

/// Whether a tensor of a UNet is the weight of a `TransformerLinear`.
fn has_fp8_form(name: &str) -> bool {
    const LINEARS: [&str; 8] =
        ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2"];
    let own = name.rsplit_once(".transformer_blocks.").and_then(|(_, own)| own.split_once('.')).map(|(_, own)| own);
    own.and_then(|own| own.strip_suffix(".weight")).is_some_and(|own| LINEARS.contains(&own))
}

/// Whether an index says that a part is not to be used.
fn is_off(entry: &Value) -> bool {
    entry.is_null() || entry.as_array().is_some_and(|class| class.iter().all(Value::is_null))
}

/// What errors call a part of a file: `model.safetensors#unet`.
fn place_in(file: &Path, part: &str) -> PathBuf {
    let mut place = file.as_os_str().to_owned();
    place.push("#");
    place.push(part);
    place.into()
}

/// The file that says how a part is built.
fn config_name(part: &str) -> &'static str {
    if part == "scheduler" { "scheduler_config.json" } else { "config.json" }
}

/// How the weight files of a part begin: transformers and diffusers have each their own name.
fn stem(part: &str) -> &'static str {
    if part.starts_with("text_encoder") || part == "bert" { "model" } else { "diffusion_pytorch_model" }
}

fn subfolders(path: &Path) -> Result<BTreeMap<String, Part>, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let mut parts = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let folder: PathBuf = entry.map_err(io)?.path();
        if let Some(name) = folder.file_name().and_then(|name| name.to_str()).filter(|_| folder.is_dir()) {
            parts.insert(name.to_owned(), Part::Folder(folder.clone()));
        }
    }
    Ok(parts)
}
