//! A model as it lies in its files: how large it is, and how it comes to the device.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tch::Kind;

use super::{device::Placement, error::LoadError, residency::ModelSource, stable_diffusion::Model, weights::weight_files};
use crate::{domain::ModelInfo, sys::map_file};

/// The parts of a pipeline that go to the device, with the stems of their files.
const PARTS: [(&str, &str); 4] = [
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
];

/// Where a model comes from, and where its tensors go.
pub(super) struct StoredModel {
    pub(super) info: ModelInfo,
    pub(super) folder: PathBuf,
    pub(super) placement: Placement,
}

impl ModelSource<Model> for StoredModel {
    fn name(&self) -> &str {
        &self.info.name
    }

    fn path(&self) -> &Path {
        &self.folder
    }

    fn bytes(&self) -> Result<u64, LoadError> {
        weights_bytes(&self.folder, self.placement.kind)
    }

    fn load(&self) -> Result<Model, LoadError> {
        Model::load(self.info.clone(), &self.folder, self.placement)
    }
}

/// Bytes of every tensor of a model's folder in the dtype `kind`. Only the headers are read; a file that is shorter than its header says
/// is refused.
fn weights_bytes(folder: &Path, kind: Kind) -> Result<u64, LoadError> {
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
