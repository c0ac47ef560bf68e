//! A component's tensors by name, checked, and every one accounted for.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Div,
    path::PathBuf,
};

use tch::{Device, Tensor};

use super::{
    device::Placement,
    error::{LoadError, Mismatch},
    files::{Order, StoredTensor},
    layers::channels_last,
    random_tensors::RandomTensors,
};

/// Turns a checkpoint's key into the name that our modules use; `None` for a tensor that no module reads.
pub(super) type Alias = fn(&str) -> Option<String>;

/// Tensors that may be missing before the reading ends: a config that asks for millions of layers would go on asking.
const MAX_MISSING: usize = 5_000;

/// The tensors of one component, such as the UNet.
pub(super) struct Weights {
    place: PathBuf,
    entries: BTreeMap<String, StoredTensor>,
    unread: RefCell<BTreeSet<String>>,
    mismatch: RefCell<Mismatch>,
    placement: Placement,
    /// Where there are no files.
    random: Option<RandomTensors>,
}

impl Weights {
    /// Takes a component's tensors under the names of its modules; `place` is what errors call the component.
    pub(super) fn new(place: PathBuf, tensors: Vec<(String, StoredTensor)>, alias: Alias, placement: Placement) -> Self {
        let (mut entries, mut repeated) = (BTreeMap::new(), Vec::new());
        for (key, tensor) in tensors {
            let Some(name) = alias(&key) else { continue };
            if entries.insert(name.clone(), tensor).is_some() {
                repeated.push(name);
            }
        }
        let unread = RefCell::new(entries.keys().cloned().collect());
        Self {
            place,
            entries,
            unread,
            mismatch: RefCell::new(Mismatch { repeated, ..Mismatch::default() }),
            placement,
            random: None,
        }
    }

    /// Whatever tensors are asked for, with random values.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn random(place: PathBuf, placement: Placement) -> Result<Self, LoadError> {
        let random = Some(RandomTensors::new(placement)?);
        Ok(Self { random, ..Self::new(place, Vec::new(), |_| None, placement) })
    }

    /// The root of the component's names.
    pub(super) fn root(&self) -> Scope<'_> {
        Scope { weights: self, path: String::new() }
    }

    /// Ends the reading; the files are unmapped when no other component is in them.
    ///
    /// # Errors
    /// When tensors were missing, misshapen or left over: all of them, by name.
    pub(super) fn finish(self) -> Result<(), LoadError> {
        let mut tensors = self.mismatch.into_inner();
        tensors.unused = self.unread.into_inner().into_iter().collect();
        if tensors.is_empty() { Ok(()) } else { Err(LoadError::Tensors { path: self.place, tensors }) }
    }

    /// Copies a tensor to the device in the dtype of the placement. A tensor that is not there is remembered and answered as zeros, so
    /// that one error can name every tensor that is missing.
    fn read(&self, name: &str, shape: &[i64], order: Order) -> Result<Tensor, LoadError> {
        if let Some(random) = &self.random {
            let tensor = random.tensor(name, shape)?;
            return Ok(if order == Order::ChannelsLast { channels_last(&tensor)? } else { tensor });
        }
        self.unread.borrow_mut().remove(name);
        let Some(stored) = self.entries.get(name) else {
            self.mismatch.borrow_mut().missing.push(name.to_owned());
            return self.zeros(shape);
        };
        if stored.shape().iter().map(|&side| side as i64).ne(shape.iter().copied()) {
            let text = format!("{name} is {:?} and should be {shape:?}", stored.shape());
            self.mismatch.borrow_mut().misshapen.push(text);
            return self.zeros(shape);
        }
        let Placement { device, kind, .. } = self.placement;
        // A GPU casts by itself, and faster.
        let read = stored.read(name, (device == Device::Cpu).then_some(kind), order)?;
        Ok(read.f_to_device(device)?.f_to_kind(kind)?)
    }

    /// One zero, seen as many: what a wrong config asks for may be larger than any memory.
    fn zeros(&self, shape: &[i64]) -> Result<Tensor, LoadError> {
        if self.mismatch.borrow().missing.len() > MAX_MISSING {
            return Err(LoadError::Tensors { path: self.place.clone(), tensors: self.mismatch.take() });
        }
        Ok(Tensor::f_zeros([1], (self.placement.kind, self.placement.device))?.f_expand(shape, false)?)
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
        self.weights.read(&format!("{}{name}", self.path), shape, Order::RowMajor)
    }

    /// The weights of a convolution, `[out, in, H, W]`, with the channels of a cell side by side in memory.
    pub(super) fn kernel(&self, name: &str, shape: [i64; 4]) -> Result<Tensor, LoadError> {
        self.weights.read(&format!("{}{name}", self.path), &shape, Order::ChannelsLast)
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
