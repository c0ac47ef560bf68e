//! Which files of a repository are needed.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::cli::CliError;

/// The file that makes a folder one in diffusers layout.
pub(super) const INDEX: &str = "model_index.json";
/// Parts that a server has no use for.
const UNUSED_PARTS: [&str; 3] = ["safety_checker", "feature_extractor", "image_encoder"];
/// What may stand before `.safetensors` in the names of weights.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
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
        // A part is [library, class]; one that the model does without is [null, null].
        if class.get(1).is_some_and(Value::is_string) && !UNUSED_PARTS.contains(&part.as_str()) {
            wanted.extend(part_files(part, files, full)?);
        }
    }
    wanted.extend(files.iter().map(String::as_str).filter(|file| *file == "latent_rgb.json"));
    Ok(wanted)
}

fn part_files<'a>(part: &str, files: &'a [String], full: bool) -> Result<Vec<&'a str>, CliError> {
    let prefix = format!("{part}/");
    let inside: Vec<&str> = files.iter().filter_map(|file| file.strip_prefix(&prefix)).filter(|name| !name.contains('/')).collect();
    let mut names: BTreeSet<&str> = inside.iter().copied().filter(|name| is_config(name)).collect();
    let pickled = inside.iter().any(|name| [".bin", ".ckpt", ".pt", ".msgpack"].iter().any(|ending| name.ends_with(ending)));
    match weights(&inside, full) {
        Some(weights) => names.extend(weights),
        None if pickled => {
            let problem =
                format!("{part}: its weights are there as pickles only, which may run code and are not read; ask for safetensors");
            return Err(CliError::failed(problem));
        }
        // A scheduler or a tokenizer has none.
        None => {}
    }
    Ok(files
        .iter()
        .map(String::as_str)
        .filter(|file| file.strip_prefix(&prefix).is_some_and(|name| names.contains(name)))
        .collect())
}

fn is_config(name: &str) -> bool {
    VOCABULARIES.contains(&name) || (name.ends_with(".json") && !name.contains(".index."))
}

/// One form of a part's weights: whole or in shards with their index.
fn weights<'a>(inside: &[&'a str], full: bool) -> Option<Vec<&'a str>> {
    let variants = if full { ["", ".fp16"] } else { [".fp16", ""] };
    for (variant, stem) in variants.iter().flat_map(|variant| STEMS.map(|stem| (variant, stem))) {
        let whole = format!("{stem}{variant}.safetensors");
        if let Some(file) = inside.iter().find(|name| **name == whole) {
            return Some(vec![file]);
        }
        let index = format!("{stem}.safetensors.index{variant}.json");
        if inside.contains(&index.as_str()) {
            let is_shard = |name: &str| is_shard(name, stem, variant);
            return Some(inside.iter().copied().filter(|name| *name == index || is_shard(name)).collect());
        }
    }
    None
}

/// `STEM-00001-of-00002.safetensors`, `STEM.fp16-00001-of-00002.safetensors` and `STEM-00001-of-00002.fp16.safetensors`.
fn is_shard(name: &str, stem: &str, variant: &str) -> bool {
    let Some(rest) = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".safetensors")) else { return false };
    let numbers = rest.strip_prefix(variant).filter(|numbers| numbers.starts_with('-')).or_else(|| rest.strip_suffix(variant));
    numbers.is_some_and(|numbers| {
        numbers.starts_with('-')
            && numbers.contains("-of-")
            && numbers.chars().all(|letter| letter.is_ascii_digit() || "-of".contains(letter))
    })
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
    fn weights_that_are_pickles_only_are_refused_with_the_reason() {
        let files = files(&[INDEX, "vae/config.json", "vae/diffusion_pytorch_model.bin"]);
        let problem = folder_files(SDXL, &files, false).unwrap_err().to_string();
        assert!(problem.contains("vae") && problem.contains("pickles"), "{problem}");
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
