//! `easel pull`: a model from the Hugging Face hub, only the files that are needed. The hub is not trusted with anything on this machine.
//!
//! Names, the cache's layout, the token and the hub's answers are hf-hub's; the requests are ours, see `transfer`.

mod blob;
mod cache;
mod checksum;
mod choose;
mod fetch;
mod http;
mod metadata;
mod names;
mod transfer;
mod trouble;
mod weights;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use clap::Args;

use self::{fetch::Hub, http::Client};
use super::{CliError, answer::answer};

/// Which model, and how much of it.
#[derive(Debug, Args)]
#[allow(clippy::missing_docs_in_private_items, reason = "the docstrings are the help's text")]
pub(super) struct PullArgs {
    /// The model on the hub; HF_ENDPOINT names another hub, HF_TOKEN or the token of `hf auth login` opens gated models
    #[arg(value_name = "OWNER/NAME", value_parser = names::model_name)]
    model: String,
    /// A branch, a tag or a commit
    #[arg(long, default_value = "main", value_parser = names::revision)]
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
    let cache = cache::from_env()?;
    let token = env::var("HF_TOKEN").ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
    let client = Client::from_env(token.or_else(|| cache.token()))?;
    let (hub, files) = Hub::open(&cache, client, &arguments.model, &arguments.revision)?;
    let path = match &arguments.file {
        Some(file) => hub.fetch(choose::checkpoint(&files, file)?)?,
        None if files.iter().any(|file| file == choose::INDEX) => pull_folder(&hub, &files, arguments.full)?,
        None => hub.fetch(choose::only_checkpoint(&files)?)?,
    };
    hub.note(&arguments.revision)?;
    answer(entry(&arguments.model, &path))
}

/// Fetches a folder in diffusers layout; answers where it is.
fn pull_folder(hub: &Hub, files: &[String], full: bool) -> Result<PathBuf, CliError> {
    let index = hub.fetch(choose::INDEX)?;
    let text = fs::read_to_string(&index).map_err(CliError::failed)?;
    for file in choose::folder_files(&text, files, full)? {
        hub.fetch(file)?;
    }
    index.parent().map(Path::to_owned).ok_or_else(|| CliError::failed("the cache has no folder for the model"))
}

/// What to write into the settings: TOML's texts are escaped as JSON's are.
fn entry(model: &str, path: &Path) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let name = model.rsplit('/').next().unwrap_or(model);
    format!("[[models]]\nname = {}\npath = {}\n", quoted(name), quoted(&path.display().to_string()))
}
