//! Checkpoints that are Python programs in disguise.

use std::path::Path;

use crate::diffusion::error::LoadError;

const EXTENSIONS: [&str; 5] = ["ckpt", "pt", "pth", "bin", "pkl"];

/// Refuses what ends like a pickle, and says what to do with it.
pub(super) fn refuse(path: &Path) -> Result<(), LoadError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !EXTENSIONS.contains(&extension.as_str()) || path.is_dir() {
        return Ok(());
    }
    let problem = format!(
        "a pickled .{extension} checkpoint is not read: opening one runs whatever code is in it. Take the model's .safetensors file or, where \
         you trust its author, turn it into one: python -c 'import sys, torch; from safetensors.torch import save_file; \
         w = torch.load(sys.argv[1], map_location=\"cpu\", weights_only=True); w = w.get(\"state_dict\", w); \
         save_file({{k: v.contiguous() for k, v in w.items() if torch.is_tensor(v)}}, sys.argv[2])' MODEL.{extension} MODEL.safetensors"
    );
    Err(LoadError::Invalid { path: path.to_owned(), problem })
}
