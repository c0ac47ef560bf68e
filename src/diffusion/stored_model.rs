//! A model as it lies in its files: how large it is, and how it comes to the device.

use std::{path::Path, sync::Arc};

use tracing::info;

use super::{
    autoencoder::VaePolicy, device::PlacementPolicy, error::LoadError, folder::ModelFolder, gpu::Gpu, loaded_model::Model,
    prompt::PromptCachePolicy, residency::ModelSource,
};
use crate::domain::ModelInfo;

/// Where a model comes from, and where its tensors go.
pub(super) struct StoredModel {
    pub(super) info: ModelInfo,
    pub(super) folder: ModelFolder,
    pub(super) device: PlacementPolicy,
    pub(super) vae_policy: VaePolicy,
    pub(super) prompt_cache: PromptCachePolicy,
    pub(super) gpu: Gpu,
}

impl ModelSource<Model> for StoredModel {
    fn name(&self) -> &str {
        &self.info.name
    }

    fn path(&self) -> &Path {
        &self.folder.path
    }

    fn bytes(&self) -> Result<u64, LoadError> {
        let files = self.folder.open()?;
        let values = files.weights_len()?;
        let exact = values.saturating_mul(self.device.of_model(values).kind.elt_size_in_bytes() as u64);
        // A byte for each that there is in fp8, too.
        Ok(if self.folder.fp8_linears { exact.saturating_add(files.fp8_len()?) } else { exact })
    }

    fn load(&self) -> Result<Model, LoadError> {
        let files = Arc::new(self.folder.open()?);
        let placement = self.device.of_model(files.weights_len()?);
        info!(model = self.info.name, dtype = ?placement.kind, placement.batch_invariant, "loading a model");
        let (vae_policy, prompt_cache) = (self.vae_policy.clone(), self.prompt_cache.clone());
        Model::load(self.info.clone(), &files, (placement, self.gpu), vae_policy, prompt_cache)
    }
}
