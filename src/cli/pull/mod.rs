//! `easel pull`: a model from the Hugging Face hub, only the files that are needed.

mod choose;
mod fetch;

use std::{env, path::Path};

use clap::Args;
use hf_hub::{Cache, Repo, RepoType};

use self::fetch::Hub;
use super::CliError;

/// Which model, and how much of it.
#[derive(Debug, Args)]
#[allow(clippy::missing_docs_in_private_items, reason = "the docstrings are the help's text")]
pub(super) struct PullArgs {
    /// The model on the hub; HF_ENDPOINT names another hub, HF_TOKEN or the token of `hf auth login` opens gated models
    #[arg(value_name = "OWNER/NAME", value_parser = model_name)]
    model: String,
    /// A branch, a tag or a commit
    #[arg(long, default_value = "main")]
    revision: String,
    /// The checkpoint to take of a repository of single files
    #[arg(long, value_name = "NAME.safetensors")]
    file: Option<String>,
    /// Take the full weights, though there are some of 16 bits
    #[arg(long)]
    full: bool,
}

/// Fetches what is not in the hub's cache on this machine yet, and prints the settings that serve it.
pub(super) fn pull(arguments: &PullArgs) -> Result<(), CliError> {
    let cache = Cache::from_env();
    let token = env::var("HF_TOKEN").ok().filter(|token| !token.trim().is_empty()).or_else(|| cache.token());
    let named = Repo::with_revision(arguments.model.clone(), RepoType::Model, arguments.revision.clone());
    let (hub, files) = Hub::open(&cache, token, &named)?;
    let path = match &arguments.file {
        Some(file) => hub.fetch(choose::checkpoint(&files, file)?)?,
        None if files.iter().any(|file| file == choose::INDEX) => pull_folder(&hub, &files, arguments.full)?,
        None => hub.fetch(choose::only_checkpoint(&files)?)?,
    };
    print!("{}", entry(&arguments.model, &path));
    Ok(())
}

/// Fetches a folder in diffusers layout; answers where it is.
fn pull_folder(hub: &Hub, files: &[String], full: bool) -> Result<std::path::PathBuf, CliError> {
    let index = hub.fetch(choose::INDEX)?;
    let text = std::fs::read_to_string(&index).map_err(CliError::failed)?;
    for file in choose::folder_files(&text, files, full)? {
        hub.fetch(file)?;
    }
    index.parent().map(Path::to_owned).ok_or_else(|| CliError::failed("the cache has no folder for the model"))
}

/// What to write into the settings.
fn entry(model: &str, path: &Path) -> String {
    let name = model.rsplit('/').next().unwrap_or(model);
    format!("[[models]]\nname = {:?}\npath = {:?}\n", name, path.display().to_string())
}

/// `OWNER/NAME`, or the name alone of the hub's oldest models.
fn model_name(text: &str) -> Result<String, String> {
    let is_word = |word: &str| {
        let is_plain = word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        !word.is_empty() && word.len() <= 96 && is_plain && !word.starts_with('.') && !word.contains("..")
    };
    let words: Vec<&str> = text.split('/').collect();
    if words.len() <= 2 && words.iter().all(|word| is_word(word)) {
        return Ok(text.to_owned());
    }
    Err("must be OWNER/NAME, such as stable-diffusion-v1-5/stable-diffusion-v1-5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_is_no_path() {
        assert!(["gpt2", "a/b", "stabilityai/sdxl-turbo_1.0"].iter().all(|name| model_name(name).is_ok()));
        assert!(["", "a/", "/a", "a/b/c", "../x", "a/..", "a/.hidden", "a b"].iter().all(|name| model_name(name).is_err()));
    }
}
