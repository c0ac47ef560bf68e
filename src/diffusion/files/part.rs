//! One part of a model, such as the UNet: its configs and its tensors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::stored::{MappedFile, StoredTensor};
use crate::diffusion::error::LoadError;

/// The largest text file that is read, in bytes; a tokenizer.json of CLIP has 4 million.
const MAX_TEXT: u64 = 64 << 20;

/// Where a part's files are.
#[derive(Debug)]
pub(in crate::diffusion) enum Part {
    /// A folder of a model in diffusers layout.
    Folder(PathBuf),
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Part {
    /// What an error about a file of this part calls it; without a name it is about the part as a whole.
    pub(in crate::diffusion) fn place(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) if name.is_empty() => folder.clone(),
            Self::Folder(folder) => folder.join(name),
        }
    }

    /// An error about one of its files.
    pub(in crate::diffusion) fn invalid(&self, name: &str, problem: impl Into<String>) -> LoadError {
        LoadError::Invalid { path: self.place(name), problem: problem.into() }
    }

    /// A text file; `None` when it is not there.
    pub(in crate::diffusion) fn text(&self, name: &str) -> Result<Option<String>, LoadError> {
        match self {
            Self::Folder(folder) => read_text(&folder.join(name)),
        }
    }

    /// Its tensors with the keys that they have there, from the files that begin with `stem`.
    pub(in crate::diffusion) fn tensors(&self, stem: &str) -> Result<Vec<(String, StoredTensor)>, LoadError> {
        match self {
            Self::Folder(folder) => {
                let files = weight_files(folder, stem)?;
                let files: Vec<_> = files.iter().map(|path| MappedFile::open(path)).collect::<Result<_, _>>()?;
                Ok(files.iter().flat_map(MappedFile::tensors).collect())
            }
        }
    }
}

/// Reads a text file that may be absent, and no more of it than is sensible.
fn read_text(path: &Path) -> Result<Option<String>, LoadError> {
    if !path.is_file() {
        return Ok(None);
    }
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    if fs::metadata(path).map_err(io)?.len() > MAX_TEXT {
        return Err(LoadError::Invalid { path: path.to_owned(), problem: format!("has more than {MAX_TEXT} bytes") });
    }
    fs::read_to_string(path).map(Some).map_err(io)
}

/// `STEM.safetensors`, its `fp16` variant, or the shards that its index names.
fn weight_files(folder: &Path, stem: &str) -> Result<Vec<PathBuf>, LoadError> {
    for variant in ["", ".fp16"] {
        let index = folder.join(format!("{stem}.safetensors.index{variant}.json"));
        if let Some(text) = read_text(&index)? {
            return shards(folder, &index, &text);
        }
        let single = folder.join(format!("{stem}{variant}.safetensors"));
        if single.is_file() {
            return Ok(vec![single]);
        }
    }
    let problem = format!(
        "no weights: expected {stem}.safetensors, {stem}.fp16.safetensors or {stem}.safetensors.index.json (pickled .bin files are not read)"
    );
    Err(LoadError::Invalid { path: folder.to_owned(), problem })
}

fn shards(folder: &Path, index: &Path, text: &str) -> Result<Vec<PathBuf>, LoadError> {
    let invalid = |problem: String| LoadError::Invalid { path: index.to_owned(), problem };
    let parsed: ShardIndex = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    // A shard is a file of this folder: an index may not point anywhere else.
    match names.iter().find(|name| name.contains(['/', '\\'])) {
        Some(name) => Err(invalid(format!("the shard {name:?} is not a plain file name"))),
        None => Ok(names.iter().map(|name| folder.join(name)).collect()),
    }
}
