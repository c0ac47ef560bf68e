//! Numbers of a config that are written once for all blocks or once a block.

use std::slice;

use serde::Deserialize;

/// A value for all blocks, or one a block.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(in crate::diffusion) enum PerBlock<T> {
    All(T),
    Each(Vec<T>),
}

impl<T: Copy> PerBlock<T> {
    /// The value of block `index`; the last value serves the blocks behind the end of the list.
    pub(in crate::diffusion) fn at(&self, index: usize) -> Option<T> {
        match self {
            Self::All(value) => Some(*value),
            Self::Each(values) => values.get(index).or(values.last()).copied(),
        }
    }

    /// Every value that is written.
    pub(super) fn values(&self) -> impl Iterator<Item = T> {
        let values = match self {
            Self::All(value) => slice::from_ref(value),
            Self::Each(values) => values,
        };
        values.iter().copied()
    }

    /// Whether there is a value for each of so many blocks.
    pub(super) fn covers(&self, blocks: usize) -> bool {
        matches!(self, Self::All(_)) || matches!(self, Self::Each(values) if values.len() == blocks)
    }
}

/// One number for all, or for each block one or a list with one a layer. (A `PerBlock` in a `PerBlock` would take the blocks' list for a
/// block's.)
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(in crate::diffusion) enum TransformerLayers {
    All(i64),
    Each(Vec<PerBlock<i64>>),
}

impl TransformerLayers {
    /// What block `index` has.
    pub(super) fn at(&self, index: usize) -> Option<PerBlock<i64>> {
        match self {
            Self::All(count) => Some(PerBlock::All(*count)),
            Self::Each(counts) => counts.get(index).cloned(),
        }
    }

    /// Whether there is a value for each of so many blocks.
    pub(super) fn covers(&self, blocks: usize) -> bool {
        matches!(self, Self::All(_)) || matches!(self, Self::Each(counts) if counts.len() == blocks)
    }
}
