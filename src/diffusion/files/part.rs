//! One part of a model, such as the UNet: its configs and its tensors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    clip_vocabulary,
    stored::{MappedFile, StoredTensor, Tensors},
};
use crate::diffusion::error::LoadError;

/// The largest text file that is read, in bytes; a tokenizer.json of CLIP has 4 million.
const MAX_TEXT: u64 = 64 << 20;

/// Where a part's files are.
#[derive(Debug)]
pub(in crate::diffusion) enum Part {
    /// A folder of a model in diffusers layout.
    Folder(PathBuf),
    /// What a single file holds of it.
    Mapped {
        /// What errors call it.
        place: PathBuf,
        /// Its configs by name.
        texts: BTreeMap<String, String>,
        /// Its tensors, in diffusers' names.
        tensors: Tensors,
    },
    /// One whose weights are drawn when they are asked for.
    Random {
        /// What errors call it.
        place: PathBuf,
        /// Its configs by name.
        texts: BTreeMap<String, String>,
        /// How many numbers its tensors have together.
        weights: u64,
    },
    /// CLIP's own tokenizer, which is built in.
    Clip {
        /// The token that fills a text up.
        pad: &'static str,
    },
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Part {
    /// A part of a single file.
    pub(super) fn mapped(place: PathBuf, texts: BTreeMap<String, String>, tensors: Tensors) -> Self {
        Self::Mapped { place, texts, tensors }
    }

    /// What an error about a file of this part calls it; without a name it is about the part as a whole.
    pub(in crate::diffusion) fn place(&self, name: &str) -> PathBuf {
        let place = match self {
            Self::Folder(place) | Self::Mapped { place, .. } | Self::Random { place, .. } => place,
            Self::Clip { .. } => Path::new("the built-in tokenizer"),
        };
        if name.is_empty() { place.to_owned() } else { place.join(name) }
    }

    /// An error about one of its files.
    pub(in crate::diffusion) fn invalid(&self, name: &str, problem: impl Into<String>) -> LoadError {
        LoadError::Invalid { path: self.place(name), problem: problem.into() }
    }

    /// A text file; `None` when it is not there.
    pub(in crate::diffusion) fn text(&self, name: &str) -> Result<Option<String>, LoadError> {
        match self {
            Self::Folder(folder) => read_text(&folder.join(name)),
            Self::Mapped { texts, .. } | Self::Random { texts, .. } => Ok(texts.get(name).cloned()),
            Self::Clip { pad } => Ok(clip_vocabulary::text(name, pad)),
        }
    }

    /// All its text files by name: configs and vocabularies.
    pub(super) fn texts(&self) -> Result<BTreeMap<String, String>, LoadError> {
        match self {
            Self::Folder(folder) => texts_in(folder),
            Self::Mapped { texts, .. } | Self::Random { texts, .. } => Ok(texts.clone()),
            Self::Clip { pad } => Ok(clip_vocabulary::texts(pad)),
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
            Self::Mapped { tensors, .. } => Ok(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect()),
            Self::Random { .. } | Self::Clip { .. } => Ok(Vec::new()),
        }
    }
}

/// The JSON and text files of a folder, but for the indexes of its shards.
fn texts_in(folder: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let io = |source| LoadError::Io { path: folder.to_owned(), source };
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_text = (name.ends_with(".json") || name.ends_with(".txt")) && !name.starts_with('.') && !name.contains(".index.");
        if let Some(text) = is_text.then(|| read_text(&path)).transpose()?.flatten() {
            texts.insert(name.to_owned(), text);
        }
    }
    Ok(texts)
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
    let mut incomplete = None;
    for variant in ["", ".fp16"] {
        let index = folder.join(format!("{stem}.safetensors.index{variant}.json"));
        if let Some(text) = read_text(&index)? {
            let files = shards(folder, &index, &text)?;
            if files.iter().all(|file| file.is_file()) {
                return Ok(files);
            }
            // Who fetches the fp16 files and every JSON has this index without its shards.
            incomplete.get_or_insert(files);
        }
        let single = folder.join(format!("{stem}{variant}.safetensors"));
        if single.is_file() {
            return Ok(vec![single]);
        }
    }
    if let Some(files) = incomplete {
        return Ok(files);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_model_as_a_whole_names_its_folder_and_nothing_in_it() {
        let folder = Part::Folder("models/edit".into());
        assert_eq!(folder.invalid("", "of no use").to_string(), "models/edit: of no use");
        assert_eq!(folder.invalid("config.json", "of no use").to_string(), "models/edit/config.json: of no use");
    }
}
