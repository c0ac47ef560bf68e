//! A whole model in one file of the original layout.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::{Map, Value};
use tch::Kind;

use super::{
    FileSettings, clip_vocabulary,
    embedded::EmbeddedConfigs,
    family::Published,
    kind::FileKind,
    original::{
        CLIP, OPEN_CLIP, REFINER_OPEN_CLIP, UNET, UNET_EMA, VAE, XL_CLIP, XL_OPEN_CLIP, clip_to_diffusers, open_clip_to_diffusers,
        squeezed, unet_names_of_original, vae_names_of_original, without_unused,
    },
    part::Part,
    shapes,
    stored::{MappedFile, Order, StoredTensor, Tensors},
};
use crate::diffusion::{error::LoadError, schedulers::PredictionType};

/// The training step of Stable Diffusion 2's base model, which predicts the noise; the one that follows it predicts the velocity.
const SD2_BASE_STEP: i64 = 875_000;
/// ComfyUI's mark of a Stable Diffusion 2 that predicts the velocity: this bias spreads wider than that.
const SD2_MARK: (&str, f64) = ("up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias", 0.09);

/// modelspec's name of the larger Stable Diffusion 2.
const SD2_V: &str = "stable-diffusion-v2-768-v";

/// Families of which no single file is read, by how some key begins.
const NOT_KNOWN: [(&str, &str); 9] = [
    ("control_model.", "a ControlNet with a whole model around it, which is not supported"),
    ("noise_augmentor.", "an unCLIP model, which is told a picture's embedding: not supported"),
    ("depth_model.", "a model that is told depths, which is not supported"),
    ("low_scale_model.", "an upscaler, which is not supported"),
    ("model.diffusion_model.input_blocks.1.0.time_stack.", "Stable Video Diffusion, which is not supported"),
    ("edm_mean", "a Playground model, whose EDM noise levels are not supported"),
    ("edm_vpred.", "a model with EDM noise levels, which are not supported"),
    (BERT[0], LATENT_DIFFUSION),
    (BERT[1], LATENT_DIFFUSION),
];
/// The text encoder of latent diffusion, of x-transformers.
const BERT: [&str; 2] = ["cond_stage_model.transformer.token_emb.", "cond_stage_model.transformer.attn_layers."];
const LATENT_DIFFUSION: &str = "latent diffusion as in its paper, of which single files are not known; its folder in diffusers layout (LDMTextToImagePipeline) is read";
const UNCONDITIONAL: &str = "its UNet takes no text, and single files of such models are not known; a folder in diffusers layout (DDPMPipeline, \
                             LDMPipeline) is read";

/// What a file says besides its tensors.
pub(super) struct Single {
    pub(super) index: Map<String, Value>,
    pub(super) parts: BTreeMap<String, Part>,
    pub(super) texts: BTreeMap<String, String>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Opens a checkpoint: its parts under diffusers' names, with the configs that it carries or that its shapes tell.
///
/// # Errors
/// When it is no whole model, or its tensors cannot be read as one.
pub(super) fn open(path: &Path, settings: &FileSettings) -> Result<Single, LoadError> {
    let file = MappedFile::open(path)?;
    let invalid = |problem: String| LoadError::Invalid { path: path.to_owned(), problem };
    let tensors: Tensors = file.tensors().collect();
    let kind = FileKind::of(&tensors);
    if kind != FileKind::Checkpoint {
        return Err(invalid(format!("this is {kind}, not a whole model")));
    }
    if let Some((_, family)) = NOT_KNOWN.into_iter().find(|(sign, _)| !under(&tensors, &[*sign]).is_empty()) {
        return Err(invalid(format!("this is {family}")));
    }
    let configs = EmbeddedConfigs::read(file.metadata()).map_err(invalid)?;
    Checkpoint { file, tensors, configs, settings }.open()
}

struct Checkpoint<'a> {
    file: Arc<MappedFile>,
    tensors: Tensors,
    configs: EmbeddedConfigs,
    settings: &'a FileSettings,
}

impl Checkpoint<'_> {
    fn open(self) -> Result<Single, LoadError> {
        let unet = self.unet()?;
        if shapes::attended_channels(&unet).is_none() {
            return Err(self.invalid(UNCONDITIONAL.to_owned()));
        }
        self.require("the UNet", &[UNET], &["input_blocks.0.0.weight", "time_embed.0.weight", "out.2.weight"])?;
        let family = Published::of_unet(&unet);
        let prediction_type = self.prediction_type(family, &unet)?;
        let in_channels = unet.get("conv_in.weight").and_then(|weight| weight.shape().get(1)).copied().unwrap_or_default();
        let scheduler = family.scheduler(prediction_type, self.ends_in_noise());
        let own_index = self.configs.object("model_index.json");
        let index = own_index.cloned().unwrap_or_else(|| family.index(in_channels, &scheduler));
        let mut parts = BTreeMap::new();
        let mut add =
            |name: &str, tensors: Tensors, config: Value| parts.insert(name.to_owned(), self.part(name, tensors, &config));
        add("scheduler", Tensors::new(), scheduler);
        let vae = vae_of(self.under(&VAE));
        if !vae.is_empty() {
            self.require("the VAE", &VAE, &["encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight"])?;
            let config = shapes::vae_config(&vae, family.scaling_factor());
            add("vae", vae, config);
        }
        for (name, tensors, hidden_act) in self.texts()? {
            let config = shapes::text_config(&tensors, hidden_act);
            add(name, tensors, config);
        }
        let config = shapes::unet_config(&unet, family.sample_size(prediction_type));
        add("unet", unet, config);
        parts.extend(self.tokenizers(family));
        Ok(Single { index, parts, texts: self.configs.texts_of(""), metadata: self.file.metadata().clone() })
    }

    /// Checks that the tensors are there which tell how a part is built, so that no other error hides what is missing.
    fn require(&self, part: &str, prefixes: &[&str], names: &[&str]) -> Result<(), LoadError> {
        let there = self.under(prefixes);
        let prefix =
            prefixes.iter().find(|prefix| self.tensors.keys().any(|key| key.starts_with(**prefix))).unwrap_or(&prefixes[0]);
        match names.iter().find(|name| !there.contains_key(**name)) {
            Some(name) => Err(self.invalid(format!("{part} lacks the tensor {prefix}{name}"))),
            None => Ok(()),
        }
    }

    /// The UNet's tensors; the averaged ones where the settings ask for them.
    fn unet(&self) -> Result<Tensors, LoadError> {
        let mut plain = self.under(&[UNET]);
        // Counters and other buffers of the program that trained it.
        plain.retain(|_, tensor| !tensor.is_integer());
        if self.settings.ema {
            plain = plain.into_keys().map(|key| self.averaged(&key).map(|tensor| (key, tensor))).collect::<Result<_, _>>()?;
        }
        let names = unet_names_of_original(plain.keys().map(String::as_str));
        Ok(plain.into_iter().map(|(key, tensor)| (names.to_diffusers(&key), tensor)).collect())
    }

    fn averaged(&self, key: &str) -> Result<StoredTensor, LoadError> {
        let flat = format!("{UNET_EMA}{}", key.replace('.', ""));
        let missing = || self.invalid(format!("ema = true, but there is no tensor {flat}"));
        self.tensors.get(&flat).cloned().ok_or_else(missing)
    }

    /// The text encoders in their order, each with its activation.
    fn texts(&self) -> Result<Vec<(&'static str, Tensors, &'static str)>, LoadError> {
        let open_clip = |prefixes: &[&str]| open_clip_to_diffusers(self.under(prefixes)).map_err(|problem| self.invalid(problem));
        let mut found = Vec::new();
        found.push(("text_encoder", clip_to_diffusers(self.under(&[CLIP, XL_CLIP])), "quick_gelu"));
        let layers = self.configs.object("text_encoder/config.json").and_then(|config| config.get("num_hidden_layers")?.as_u64());
        found.push(("text_encoder", without_unused(open_clip(&[OPEN_CLIP])?, layers), "gelu"));
        found.push(("text_encoder_2", open_clip(&[XL_OPEN_CLIP, REFINER_OPEN_CLIP])?, "gelu"));
        found.retain(|(_, tensors, _)| !tensors.is_empty());
        Ok(found)
    }

    /// What the model was trained to predict: as the settings, a marker, the metadata or the weights say, in this order. (The programs that
    /// merge checkpoints keep metadata that are no longer true, and the marker, which is a tensor.)
    fn prediction_type(&self, family: Published, unet: &Tensors) -> Result<PredictionType, LoadError> {
        let marked = self.tensors.contains_key("v_pred").then_some(PredictionType::VPrediction);
        match self.settings.prediction_type.or(marked).or_else(|| self.stated()) {
            Some(stated) => Ok(stated),
            None if family == Published::StableDiffusion2 && self.predicts_velocity(unet)? => Ok(PredictionType::VPrediction),
            None => Ok(PredictionType::Epsilon),
        }
    }

    /// What the metadata say, in the spellings that other programs write; `v` wins over `epsilon`, which some write whatever it is.
    fn stated(&self) -> Option<PredictionType> {
        let says = ["modelspec.prediction_type", "modelspec.predict_key"].map(|key| self.says(key));
        if says.iter().flatten().any(|text| text.starts_with('v')) || self.says("modelspec.architecture").as_deref() == Some(SD2_V)
        {
            return Some(PredictionType::VPrediction);
        }
        says.iter().flatten().any(|text| text.starts_with("eps")).then_some(PredictionType::Epsilon)
    }

    fn says(&self, key: &str) -> Option<String> {
        self.file.metadata().get(key).map(|text| text.to_ascii_lowercase())
    }

    /// Whether its noise ends in pure noise.
    fn ends_in_noise(&self) -> bool {
        self.tensors.contains_key("ztsnr") || self.says("modelspec.prediction_type").is_some_and(|text| text.contains("zsnr"))
    }

    /// Of a Stable Diffusion 2; those for inpainting and the like predict the noise.
    fn predicts_velocity(&self, unet: &Tensors) -> Result<bool, LoadError> {
        if unet.get("conv_in.weight").is_none_or(|weight| weight.shape().get(1) != Some(&4)) {
            return Ok(false);
        }
        let single = |name| self.tensors.get(name).filter(|tensor| tensor.shape().iter().product::<usize>() == 1);
        if let Some(step) = single("global_step").and_then(StoredTensor::integer) {
            return Ok(step != SD2_BASE_STEP);
        }
        match unet.get(SD2_MARK.0).filter(|bias| bias.shape().len() == 1) {
            Some(bias) => {
                let spread = bias.read(SD2_MARK.0, Some(Kind::Double), Order::RowMajor)?.f_std(false)?;
                Ok(spread.f_double_value(&[])? > SD2_MARK.1)
            }
            None => Ok(false),
        }
    }

    /// The tokenizers that the file carries; else CLIP's own.
    fn tokenizers(&self, family: Published) -> Vec<(String, Part)> {
        let named = ["tokenizer", "tokenizer_2"].map(|name| (name, self.configs.texts_of(&format!("{name}/"))));
        let mut own: Vec<_> = named.into_iter().filter(|(_, texts)| !texts.is_empty()).collect();
        for (_, texts) in own.iter_mut().filter(|(_, texts)| !clip_vocabulary::FILES.iter().any(|file| texts.contains_key(*file))) {
            texts.extend(
                clip_vocabulary::FILES.iter().filter_map(|file| Some(((*file).to_owned(), clip_vocabulary::text(file, "")?))),
            );
        }
        let mapped = |(name, texts): (&str, _)| (name.to_owned(), Part::mapped(self.place(name), texts, Tensors::new()));
        let mut parts: Vec<_> = family.tokenizers().iter().map(|(name, pad)| ((*name).to_owned(), Part::Clip { pad })).collect();
        parts.extend(own.into_iter().map(mapped));
        parts
    }

    fn part(&self, name: &str, tensors: Tensors, derived: &Value) -> Part {
        let mut texts = self.configs.texts_of(&format!("{name}/"));
        texts.entry(super::config_name(name).to_owned()).or_insert_with(|| derived.to_string());
        Part::mapped(self.place(name), texts, tensors)
    }

    fn place(&self, part: &str) -> std::path::PathBuf {
        super::place_in(self.file.path(), part)
    }

    fn under(&self, prefixes: &[&str]) -> Tensors {
        under(&self.tensors, prefixes)
    }

    fn invalid(&self, problem: String) -> LoadError {
        LoadError::Invalid { path: self.file.path().to_owned(), problem }
    }
}

/// The tensors behind the first of these prefixes that any has, without it.
pub(super) fn under(tensors: &Tensors, prefixes: &[&str]) -> Tensors {
    let behind = |prefix: &&str| -> Tensors {
        let found = tensors
            .range((*prefix).to_owned()..)
            .map_while(|(key, tensor)| Some((key.strip_prefix(*prefix)?.to_owned(), tensor.clone())));
        found.collect()
    };
    prefixes.iter().map(behind).find(|found| !found.is_empty()).unwrap_or_default()
}

/// A VAE's tensors in diffusers' names, from either layout.
pub(super) fn vae_of(tensors: Tensors) -> Tensors {
    let names = vae_names_of_original(tensors.keys().map(String::as_str));
    let is_weight = |key: &str| !key.starts_with("loss.") && !key.starts_with("model_ema.");
    let renamed = tensors.into_iter().filter(|(key, _)| is_weight(key)).map(|(key, tensor)| (names.to_diffusers(&key), tensor));
    renamed.map(|(name, tensor)| (name.clone(), squeezed(&name, tensor))).collect()
}
