//! Checkpoints that are Python programs in disguise.

use std::path::Path;

use crate::diffusion::error::LoadError;

const EXTENSIONS: [&str; 5] = ["ckpt", "pt", "pth", "bin", "pkl"];

/// How PyTorch's files begin: as a zip, and before version 1.6 as a bare pickle.
const PICKLES: [&[u8]; 2] = [b"PK\x03\x04", b"\x80\x02"];
/// How files begin that are often found in a checkpoint's place.
const OTHERS: [(&[u8], &str); 4] = [
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: `git lfs pull` fetches that"),
    (b"GGUF", "a GGUF file, which is not read; take the model's .safetensors file"),
    (b"<!", "a web page, not a model: the download did not work"),
    (b"<html", "a web page, not a model: the download did not work"),
];

/// Refuses what ends like a pickle, and says what to do with it.
pub(super) fn refuse(path: &Path) -> Result<(), LoadError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !EXTENSIONS.contains(&extension.as_str()) || path.is_dir() {
        return Ok(());
    }
    Err(pickled(path, &extension))
}

/// Refuses what begins like something else than a safetensors file, whatever its name.
pub(super) fn refuse_content(path: &Path, bytes: &[u8]) -> Result<(), LoadError> {
    if PICKLES.iter().any(|begin| bytes.starts_with(begin)) {
        return Err(pickled(path, "ckpt"));
    }
    match OTHERS.iter().find(|(begin, _)| bytes.starts_with(begin)) {
        Some((_, what)) => Err(LoadError::Invalid { path: path.to_owned(), problem: format!("this is {what}") }),
        None => Ok(()),
    }
}

fn pickled(path: &Path, extension: &str) -> LoadError {
    let problem = format!(
        "a pickled .{extension} checkpoint is not read: opening one runs whatever code is in it. Take the model's .safetensors file or, where \
         you trust its author, turn it into one: python -c 'import sys, torch; from safetensors.torch import save_file; \
         w = torch.load(sys.argv[1], map_location=\"cpu\", weights_only=True); w = w.get(\"state_dict\", w); \
         save_file({{k: v.contiguous() for k, v in w.items() if torch.is_tensor(v)}}, sys.argv[2])' MODEL.{extension} MODEL.safetensors"
    );
    LoadError::Invalid { path: path.to_owned(), problem }
}
