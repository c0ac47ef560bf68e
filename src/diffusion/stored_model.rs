//! A model as it lies in its files: how large it is, and how it comes to the device.

use std::{path::Path, sync::Arc};

use super::{
    autoencoder::VaePolicy, device::Placement, error::LoadError, folder::ModelFolder, gpu::Gpu, prompt::PromptCachePolicy,
    residency::ModelSource, stable_diffusion::Model,
};
use crate::domain::ModelInfo;

/// Where a model comes from, and where its tensors go.
pub(super) struct StoredModel {
    pub(super) info: ModelInfo,
    pub(super) folder: ModelFolder,
    pub(super) placement: Placement,
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
        let values = self.folder.open()?.weights_len()?;
        Ok(values.saturating_mul(self.placement.kind.elt_size_in_bytes() as u64))
    }

    fn load(&self) -> Result<Model, LoadError> {
        let (files, vae_policy, prompt_cache) = (self.folder.open()?, self.vae_policy.clone(), self.prompt_cache.clone());
        Model::load(self.info.clone(), &Arc::new(files), (self.placement, self.gpu), vae_policy, prompt_cache)
    }
}
