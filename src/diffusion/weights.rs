//! Reads a component's safetensors files: mapped, checked, and every tensor accounted for.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Div,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorInfo};
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::{
    device::Placement,
    error::{LoadError, Mismatch},
};
use crate::sys::map_file;

/// Turns a checkpoint's key into the name that our modules use; `None` for a tensor that no module reads.
pub(super) type Alias = fn(&str) -> Option<String>;

/// The tensors of one component, such as the UNet.
pub(super) struct Weights {
    folder: PathBuf,
    files: Vec<(Mmap, usize)>,
    entries: BTreeMap<String, (usize, TensorInfo)>,
    unread: RefCell<BTreeSet<String>>,
    mismatch: RefCell<Mismatch>,
    placement: Placement,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Maps the files of a component: `STEM.safetensors`, its `fp16` variant, or the shards that its index names.
    pub(super) fn open(folder: &Path, stem: &str, alias: Alias, placement: Placement) -> Result<Self, LoadError> {
        let mut files = Vec::new();
        let (mut entries, mut repeated) = (BTreeMap::new(), Vec::new());
        for path in weight_files(folder, stem)? {
            let map = map_file(&path).map_err(|source| LoadError::Io { path: path.clone(), source })?;
            let (header, metadata) = SafeTensors::read_metadata(&map)
                .map_err(|error| LoadError::Invalid { path: path.clone(), problem: format!("not a safetensors file: {error}") })?;
            for (key, info) in metadata.tensors() {
                let Some(name) = alias(&key) else { continue };
                if entries.insert(name.clone(), (files.len(), info.clone())).is_some() {
                    repeated.push(name);
                }
            }
            // Offsets count from the end of the header, which stands behind its own length (8 bytes).
            files.push((map, header + 8));
        }
        let unread = RefCell::new(entries.keys().cloned().collect());
        let mismatch = RefCell::new(Mismatch { repeated, ..Mismatch::default() });
        Ok(Self { folder: folder.to_owned(), files, entries, unread, mismatch, placement })
    }

    /// The root of the component's names.
    pub(super) fn root(&self) -> Scope<'_> {
        Scope { weights: self, path: String::new() }
    }

    /// Ends the reading; the files are unmapped.
    ///
    /// # Errors
    /// When tensors were missing, misshapen or left over: all of them, by name.
    pub(super) fn finish(self) -> Result<(), LoadError> {
        let mut tensors = self.mismatch.into_inner();
        tensors.unused = self.unread.into_inner().into_iter().collect();
        if tensors.is_empty() { Ok(()) } else { Err(LoadError::Tensors { path: self.folder, tensors }) }
    }

    /// Copies a tensor to the device in the dtype of the placement. A tensor that is not there is remembered and answered as zeros, so
    /// that one error can name every tensor that is missing.
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        self.unread.borrow_mut().remove(name);
        let Some((file, info)) = self.entries.get(name) else {
            self.mismatch.borrow_mut().missing.push(name.to_owned());
            return self.zeros(shape);
        };
        if info.shape.iter().map(|&side| side as i64).ne(shape.iter().copied()) {
            let text = format!("{name} is {:?} and should be {shape:?}", info.shape);
            self.mismatch.borrow_mut().misshapen.push(text);
            return self.zeros(shape);
        }
        let (map, start) = &self.files[*file];
        let bytes = &map[start + info.data_offsets.0..start + info.data_offsets.1];
        let tensor = Tensor::f_from_data_size(bytes, shape, self.kind_of(name, info.dtype)?)?;
        Ok(tensor.f_to_device(self.placement.device)?.f_to_kind(self.placement.kind)?)
    }

    fn zeros(&self, shape: &[i64]) -> Result<Tensor, LoadError> {
        Ok(Tensor::f_zeros(shape, (self.placement.kind, self.placement.device))?)
    }

    fn kind_of(&self, name: &str, dtype: Dtype) -> Result<Kind, LoadError> {
        match dtype {
            Dtype::F16 => Ok(Kind::Half),
            Dtype::BF16 => Ok(Kind::BFloat16),
            Dtype::F32 => Ok(Kind::Float),
            Dtype::F64 => Ok(Kind::Double),
            other => Err(LoadError::Invalid {
                path: self.folder.clone(),
                problem: format!("the tensor {name} is {other:?}; floating-point tensors of 16 bits or more are read"),
            }),
        }
    }
}

/// A place in a component's tree of names: `&vs / "down_blocks" / 0 / "resnets"` mirrors the checkpoint's keys.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    weights: &'a Weights,
    path: String,
}

impl Scope<'_> {
    /// The tensor of this name in this place.
    pub(super) fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        self.weights.read(&format!("{}{name}", self.path), shape)
    }

    /// Where and how the tensors are kept.
    pub(super) fn placement(&self) -> Placement {
        self.weights.placement
    }
}

impl<'a, T: std::fmt::Display> Div<T> for &Scope<'a> {
    type Output = Scope<'a>;

    fn div(self, name: T) -> Scope<'a> {
        Scope { weights: self.weights, path: format!("{}{name}.", self.path) }
    }
}

impl<'a, T: std::fmt::Display> Div<T> for Scope<'a> {
    type Output = Self;

    fn div(self, name: T) -> Self {
        &self / name
    }
}

/// The files of a component.
pub(super) fn weight_files(folder: &Path, stem: &str) -> Result<Vec<PathBuf>, LoadError> {
    for variant in ["", ".fp16"] {
        let index = folder.join(format!("{stem}.safetensors.index{variant}.json"));
        if index.is_file() {
            return shards(folder, &index);
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

fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let invalid = |problem: String| LoadError::Invalid { path: index.to_owned(), problem };
    let text = fs::read(index).map_err(|source| LoadError::Io { path: index.to_owned(), source })?;
    let parsed: ShardIndex = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    // A shard is a file of this folder: an index may not point anywhere else.
    match names.iter().find(|name| name.contains(['/', '\\'])) {
        Some(name) => Err(invalid(format!("the shard {name:?} is not a plain file name"))),
        None => Ok(names.iter().map(|name| folder.join(name)).collect()),
    }
}
