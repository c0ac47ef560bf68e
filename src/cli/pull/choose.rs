//! Which files of a repository are needed.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{names::is_inside, weights::weights};
use crate::cli::CliError;

/// The file that makes a folder one in diffusers layout.
pub(super) const INDEX: &str = "model_index.json";
/// Parts that a server has no use for.
const UNUSED_PARTS: [&str; 3] = ["safety_checker", "feature_extractor", "image_encoder"];
/// Files of a tokenizer that are not JSON.
const VOCABULARIES: [&str; 2] = ["merges.txt", "vocab.txt"];

/// The files of a diffusers folder, by the parts that its `model_index.json` (`index`) names: configs, tokenizers, and each part's
/// weights once, those of 16 bits where there are some, unless `full`.
///
/// # Errors
/// When the index is not one, or a part's weights are not there as safetensors.
pub(super) fn folder_files<'a>(index: &str, files: &'a [String], full: bool) -> Result<Vec<&'a str>, CliError> {
    let index: Map<String, Value> = serde_json::from_str(index).map_err(|error| CliError::failed(format!("{INDEX}: {error}")))?;
    let mut wanted = Vec::new();
    for (part, class) in &index {
        if !is_inside(part) {
            return Err(CliError::failed(format!("{INDEX}: {part:?} is no name of a part")));
        }
        // A part is [library, class]; one that the model does without is [null, null].
        if class.get(1).is_some_and(Value::is_string) && !UNUSED_PARTS.contains(&part.as_str()) {
            wanted.extend(part_files(part, files, full)?);
        }
    }
    wanted.extend(files.iter().map(String::as_str).filter(|file| *file == "latent_rgb.json"));
    Ok(wanted)
}

fn part_files<'a>(part: &str, files: &'a [String], full: bool) -> Result<Vec<&'a str>, CliError> {
    let folder = format!("{part}/");
    let prefix = if files.iter().any(|file| file.starts_with(&folder)) { folder.as_str() } else { "" };
    let inside: Vec<&str> = files.iter().filter_map(|file| file.strip_prefix(prefix)).filter(|name| !name.contains('/')).collect();
    let names: BTreeSet<&str> = match (prefix, part) {
        // The oldest models without text have these two beside their index.
        ("", "scheduler") => BTreeSet::from(["scheduler_config.json"]),
        ("", "unet") => weights(part, &inside, full)?.into_iter().chain(["config.json"]).collect(),
        ("", _) => weights(part, &[], full)?.into_iter().collect(),
        _ => weights(part, &inside, full)?.into_iter().chain(inside.into_iter().filter(|name| is_config(name))).collect(),
    };
    let is_wanted = |file: &&str| file.strip_prefix(prefix).is_some_and(|name| names.contains(name));
    Ok(files.iter().map(String::as_str).filter(is_wanted).collect())
}

fn is_config(name: &str) -> bool {
    VOCABULARIES.contains(&name) || (name.ends_with(".json") && !name.contains(".index."))
}

/// The checkpoint that the user names.
///
/// # Errors
/// When it is not there, or a pickle.
pub(super) fn checkpoint<'a>(files: &'a [String], name: &str) -> Result<&'a str, CliError> {
    let found = files.iter().find(|file| *file == name && name.ends_with(".safetensors"));
    found
        .map(String::as_str)
        .ok_or_else(|| CliError::Usage(format!("--file: must be one of {}; got {name}", list(&checkpoints(files)))))
}

/// The checkpoint of a repository that has just one.
///
/// # Errors
/// When there is none, or several to choose from.
pub(super) fn only_checkpoint(files: &[String]) -> Result<&str, CliError> {
    match checkpoints(files)[..] {
        [file] => Ok(file),
        [] => {
            Err(CliError::failed("neither a model in diffusers layout (model_index.json) nor a .safetensors checkpoint is in it"))
        }
        ref several => Err(CliError::Usage(format!("several checkpoints are in it: choose with --file one of {}", list(several)))),
    }
}

fn checkpoints(files: &[String]) -> Vec<&str> {
    files.iter().map(String::as_str).filter(|file| file.ends_with(".safetensors")).collect()
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none: no .safetensors file is in it".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDXL: &str = r#"{"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true,
        "safety_checker": ["s", "C"], "image_encoder": [null, null], "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}"#;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_part_brings_its_configs_and_its_weights_once() {
        let files = files(&[
            "README.md",
            INDEX,
            "model.safetensors",
            "safety_checker/config.json",
            "safety_checker/model.safetensors",
            "scheduler/scheduler_config.json",
            "text_encoder_2/config.json",
            "text_encoder_2/flax_model.msgpack",
            "text_encoder_2/model.fp16.safetensors",
            "text_encoder_2/model.onnx",
            "text_encoder_2/model.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.fp16.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model.non_ema.safetensors",
            "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
            "unet/diffusion_pytorch_model.safetensors.index.json",
            "vae/config.json",
            "vae/diffusion_pytorch_model.bin",
            "vae/diffusion_pytorch_model.safetensors",
        ]);
        let half = folder_files(SDXL, &files, false).unwrap();
        assert_eq!(
            half,
            [
                "scheduler/scheduler_config.json",
                "text_encoder_2/config.json",
                "text_encoder_2/model.fp16.safetensors",
                "tokenizer/merges.txt",
                "tokenizer/vocab.json",
                "unet/config.json",
                "unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
                "unet/diffusion_pytorch_model-00002-of-00002.fp16.safetensors",
                "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
                "vae/config.json",
                "vae/diffusion_pytorch_model.safetensors",
            ]
        );
        let full = folder_files(SDXL, &files, true).unwrap();
        assert_eq!(full.len(), half.len());
        assert!(full.iter().all(|file| !file.contains("fp16")), "{full:?}");
    }

    #[test]
    fn models_without_text_may_have_their_parts_beside_the_index() {
        const DDPM: &str =
            r#"{"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}"#;
        let names = ["config.json", "diffusion_pytorch_model.safetensors", INDEX, "other.json", "scheduler_config.json"];
        let wanted = ["scheduler_config.json", "config.json", "diffusion_pytorch_model.safetensors"];
        assert_eq!(folder_files(DDPM, &files(&names), false).unwrap(), wanted);
        let problem = folder_files(DDPM, &files(&["config.json", INDEX]), false).unwrap_err().to_string();
        assert!(problem.contains("unet: no weights that are read"), "{problem}");
    }

    #[test]
    fn a_part_of_the_index_that_is_not_there_is_named() {
        let problem = folder_files(SDXL, &files(&[INDEX, "model.safetensors"]), false).unwrap_err().to_string();
        assert!(problem.contains("text_encoder_2: no weights that are read"), "{problem}");
    }

    #[test]
    fn an_index_brings_no_control_characters_to_the_terminal() {
        let problem =
            folder_files(r#"{"text_encoder\u001b[2J": ["transformers", "CLIPTextModel"]}"#, &files(&[INDEX]), false).unwrap_err();
        assert!(problem.to_string().contains("no name of a part") && !problem.to_string().contains('\u{1b}'), "{problem}");
    }

    #[test]
    fn one_of_several_checkpoints_must_be_named() {
        assert_eq!(only_checkpoint(&files(&["a.ckpt", "b.safetensors"])).unwrap(), "b.safetensors");
        let several = files(&["a.safetensors", "b.safetensors"]);
        assert!(only_checkpoint(&several).unwrap_err().to_string().contains("a.safetensors, b.safetensors"));
        assert_eq!(checkpoint(&several, "b.safetensors").unwrap(), "b.safetensors");
        assert!(checkpoint(&several, "c.safetensors").is_err());
        assert!(checkpoint(&files(&["a.ckpt"]), "a.ckpt").unwrap_err().to_string().contains("no .safetensors"));
    }
}
