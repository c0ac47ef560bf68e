//! Tensors where they lie: in a file that is mapped, not read.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::Mmap;
use safetensors::Dtype;
use tch::{Device, Kind, TchError, Tensor};

use super::{
    header::{Header, TensorInfo},
    pickle,
};
use crate::{
    diffusion::error::LoadError,
    sys::{copy_values, forget_pages, map_file},
};

/// Tensors by name.
pub(super) type Tensors = BTreeMap<String, StoredTensor>;

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
        pickle::refuse_content(path, &map)?;
        let header = Header::parse(&map).map_err(|problem| LoadError::Invalid { path: path.to_owned(), problem })?;
        Ok(Arc::new(Self { path: path.to_owned(), map, header }))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its free texts.
    pub(super) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Every tensor by its key.
    pub(super) fn tensors(self: &Arc<Self>) -> impl Iterator<Item = (String, StoredTensor)> {
        let stored = |info: &TensorInfo| StoredTensor {
            file: Arc::clone(self),
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: info.bytes.clone(),
            is_turned: false,
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
    /// A matrix that lies there with its sides the other way round.
    is_turned: bool,
}

impl StoredTensor {
    /// Its sides.
    pub(in crate::diffusion) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its dtype in the file.
    pub(super) fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its size in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Its values in this dtype; what need not be changed is not copied.
    pub(super) fn bytes_as(&self, name: &str, dtype: Dtype) -> Result<Cow<'_, [u8]>, LoadError> {
        if dtype == self.dtype && !self.is_turned {
            return Ok(Cow::Borrowed(&self.file.map[self.bytes.clone()]));
        }
        let kind = kind_of(dtype).unwrap_or(Kind::Float);
        let tensor = self.read(name, Some(kind), Order::RowMajor)?;
        let mut bytes = vec![0; tensor.numel() * dtype.bitsize() / 8];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        Ok(Cow::Owned(bytes))
    }

    /// Gives the file's pages back once they have been read.
    pub(super) fn forget(&self) {
        forget_pages(&self.file.map, self.bytes.clone());
    }

    /// The number that it holds, when it is one whole number.
    pub(super) fn integer(&self) -> Option<i64> {
        let bytes = &self.file.map[self.bytes.clone()];
        match self.dtype {
            Dtype::I64 => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
            Dtype::I32 => Some(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            _ => None,
        }
    }

    /// Whether it is a floating-point tensor that a network can be made of.
    pub(super) fn is_weight(&self) -> bool {
        kind_of(self.dtype).is_some()
    }

    /// Whether it holds whole numbers or bits, which no network is made of.
    pub(super) fn is_integer(&self) -> bool {
        use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
        matches!(self.dtype, BOOL | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
    }

    /// The same values in a shape that holds as many.
    pub(super) fn reshaped(self, shape: Vec<usize>) -> Self {
        Self { shape, ..self }
    }

    /// A matrix with its sides exchanged; `None` for what is none.
    pub(super) fn transposed(self) -> Option<Self> {
        let [rows, columns] = self.shape[..] else { return None };
        Some(Self { shape: vec![columns, rows], is_turned: !self.is_turned, ..self })
    }

    /// Its first, second or last third of rows; `None` when they do not divide by three.
    pub(super) fn third(&self, place: usize) -> Option<Self> {
        let (rows, rest) = self.shape.split_first().filter(|(rows, _)| **rows % 3 == 0 && !self.is_turned)?;
        let length = self.bytes.len() / 3;
        let start = self.bytes.start + place * length;
        let shape = [&[rows / 3], rest].concat();
        Some(Self { shape, bytes: start..start + length, ..self.clone() })
    }

    /// Copies it into memory, cast on the way (`None` keeps its own dtype); the file's pages are given back.
    ///
    /// # Errors
    /// When it does not hold floating-point numbers of 16 bits or more.
    pub(in crate::diffusion) fn read(&self, name: &str, kind: Option<Kind>, order: Order) -> Result<Tensor, LoadError> {
        let own = kind_of(self.dtype).ok_or_else(|| LoadError::Invalid {
            path: self.file.path.clone(),
            problem: format!("the tensor {name} is {:?}; floating-point tensors of 16 bits or more are read", self.dtype),
        })?;
        let shape: Vec<i64> = self.shape.iter().map(|&side| side as i64).collect();
        let tensor = order.empty(&shape, kind.unwrap_or(own))?;
        let mut as_stored = if self.is_turned { tensor.f_transpose(0, 1)? } else { tensor.shallow_clone() };
        copy_values(&self.file.map[self.bytes.clone()], own, &mut as_stored)?;
        self.forget();
        Ok(tensor)
    }
}

/// How a tensor's values lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum Order {
    /// As files have them: those of the last side side by side.
    RowMajor,
    /// `[out, in, H, W]` with those of one cell side by side.
    ChannelsLast,
}

impl Order {
    /// A 1 × 1 kernel is the same in both orders; it keeps the strides by which libtorch knows it for both.
    fn empty(self, shape: &[i64], kind: Kind) -> Result<Tensor, TchError> {
        match (self, shape) {
            (Self::ChannelsLast, &[outputs, inputs, height, width]) if height * width > 1 => {
                Tensor::f_empty([outputs, height, width, inputs], (kind, Device::Cpu))?.f_permute([0, 3, 1, 2])
            }
            _ => Tensor::f_empty(shape, (kind, Device::Cpu)),
        }
    }
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F32 => Some(Kind::Float),
        Dtype::F64 => Some(Kind::Double),
        _ => None,
    }
}
