//! Tensors where they lie: in a file that is mapped, not read.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::Mmap;
use safetensors::Dtype;
use tch::{Kind, Tensor};

use super::header::{Header, TensorInfo};
use crate::{
    diffusion::error::LoadError,
    sys::{forget_pages, map_file},
};

/// A safetensors file.
#[derive(Debug)]
pub(super) struct MappedFile {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl MappedFile {
    /// Maps a file and checks its header.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, LoadError> {
        let map = map_file(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
        let header = Header::parse(&map).map_err(|problem| LoadError::Invalid { path: path.to_owned(), problem })?;
        Ok(Arc::new(Self { path: path.to_owned(), map, header }))
    }

    /// Every tensor by its key.
    pub(super) fn tensors(self: &Arc<Self>) -> impl Iterator<Item = (String, StoredTensor)> {
        let stored = |info: &TensorInfo| StoredTensor {
            file: Arc::clone(self),
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: info.bytes.clone(),
        };
        self.header.tensors.iter().map(move |(key, info)| (key.clone(), stored(info)))
    }
}

/// A tensor, or some rows of one, in a file.
#[derive(Debug, Clone)]
pub(in crate::diffusion) struct StoredTensor {
    file: Arc<MappedFile>,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl StoredTensor {
    /// Its sides.
    pub(in crate::diffusion) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Copies it into memory, in its own dtype; the file's pages are given back.
    ///
    /// # Errors
    /// When it does not hold floating-point numbers of 16 bits or more.
    pub(in crate::diffusion) fn read(&self, name: &str) -> Result<Tensor, LoadError> {
        let shape: Vec<i64> = self.shape.iter().map(|&side| side as i64).collect();
        let tensor = Tensor::f_from_data_size(&self.file.map[self.bytes.clone()], &shape, self.kind(name)?)?;
        forget_pages(&self.file.map, self.bytes.clone());
        Ok(tensor)
    }

    fn kind(&self, name: &str) -> Result<Kind, LoadError> {
        match self.dtype {
            Dtype::F16 => Ok(Kind::Half),
            Dtype::BF16 => Ok(Kind::BFloat16),
            Dtype::F32 => Ok(Kind::Float),
            Dtype::F64 => Ok(Kind::Double),
            other => Err(LoadError::Invalid {
                path: self.file.path.clone(),
                problem: format!("the tensor {name} is {other:?}; floating-point tensors of 16 bits or more are read"),
            }),
        }
    }
}
