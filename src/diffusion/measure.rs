//! How much memory a model's weights take, from the headers of its files.

use std::path::Path;

use safetensors::SafeTensors;
use tch::Kind;

use super::{error::LoadError, weights::weight_files};
use crate::sys::map_file;

/// The parts of a pipeline that go to the device, with the stems of their files.
const PARTS: [(&str, &str); 4] = [
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
];

/// Bytes of every tensor of a model's folder in the dtype `kind`. Only the headers are read; a file that is shorter than its header says
/// is refused.
pub(super) fn weights_bytes(folder: &Path, kind: Kind) -> Result<u64, LoadError> {
    let parts = PARTS.iter().map(|(part, stem)| (folder.join(part), *stem)).filter(|(part, _)| part.is_dir());
    parts.map(|(part, stem)| part_bytes(&part, stem, kind)).sum()
}

fn part_bytes(part: &Path, stem: &str, kind: Kind) -> Result<u64, LoadError> {
    let mut values = 0_usize;
    for path in weight_files(part, stem)? {
        let map = map_file(&path).map_err(|source| LoadError::Io { path: path.clone(), source })?;
        let (_, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| LoadError::Invalid { path, problem: format!("not a safetensors file: {error}") })?;
        let sizes = metadata.tensors().into_values().map(|info| info.shape.iter().product::<usize>());
        values = sizes.fold(values, usize::saturating_add);
    }
    Ok((values as u64).saturating_mul(kind.elt_size_in_bytes() as u64))
}
