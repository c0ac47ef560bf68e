//! Group norm in two launches, with what stands before and behind it.

use std::{ops::RangeInclusive, ptr};

use tch::{Kind, TchError, Tensor};

use super::{
    super::driver::{Argument, Launch},
    Launcher, launcher,
    layout::{address, channels_last, kernel, pack_of},
};

/// Threads of a block; more where one row of channels takes more.
const THREADS: i64 = 512;
const MOST_THREADS: i64 = 1024;
/// Shared memory that every GPU gives a block without being asked.
const SHARED_BYTES: i64 = 48 << 10;
/// Values that a block of a group norm takes: fewer where there are few, so that all of a GPU works; and the blocks of a sample at most, since
/// each reads what all have found.
const VALUES_A_BLOCK: RangeInclusive<i64> = 8 << 10..=32 << 10;
const BLOCKS: i64 = 264;
const MOST_PIECES: i64 = 256;
/// A group norm over feature maps in channels-last layout, with what is done before and behind it.
#[derive(Debug)]
pub struct GroupNormCall<'a> {
    /// `[N, C, H, W]`
    pub x: &'a Tensor,
    /// Added to each sample's channels first, `[N, C]`.
    pub shift: Option<&'a Tensor>,
    /// `[C]`
    pub weight: &'a Tensor,
    /// `[C]`
    pub bias: &'a Tensor,
    /// Into which the channels are divided.
    pub groups: i64,
    /// Added to the variance.
    pub eps: f64,
    /// Whether SiLU comes behind it.
    pub silu: bool,
}

/// `act(group_norm(x + shift))` in two passes over memory. None where there are no kernels for the device, or not for such tensors.
pub fn group_norm(call: &GroupNormCall) -> Option<Result<Tensor, TchError>> {
    Some(call.run(&*launcher(call.x)?, call.shape()?))
}

/// How a group norm's launches divide a feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NormShape {
    samples: i64,
    cells: i64,
    channels: i64,
    /// Threads that take a cell's channels, and cells that a block takes at a time.
    pub(super) block: [i64; 2],
    pub(super) cells_per_block: i64,
    pub(super) pieces: i64,
}

impl GroupNormCall<'_> {
    /// None when the kernel cannot do it.
    pub(super) fn shape(&self) -> Option<NormShape> {
        let [samples, channels, height, width] = channels_last(self.x)?;
        let pack = pack_of(self.x)?;
        let same_kind =
            |tensor: &Tensor| tensor.kind() == self.x.kind() && tensor.device() == self.x.device() && tensor.is_contiguous();
        let fits = channels % pack == 0
            && self.groups > 0
            && channels % self.groups == 0
            && [self.weight, self.bias].iter().all(|tensor| same_kind(tensor) && tensor.size() == [channels])
            && self.shift.is_none_or(|shift| same_kind(shift) && shift.size() == [samples, channels]);
        let (cells, packs) = (height * width, channels / pack);
        let rows = (THREADS / packs.max(1)).max(1);
        let threads = packs * rows;
        let shared = rows * channels * 8;
        if !fits
            || cells * samples == 0
            || samples > 65_535
            || threads > MOST_THREADS
            || threads < self.groups
            || shared > SHARED_BYTES
        {
            return None;
        }
        let values = (samples * cells * channels / BLOCKS).clamp(*VALUES_A_BLOCK.start(), *VALUES_A_BLOCK.end());
        let cells_per_block = up_to_multiple((values / channels).max(cells / MOST_PIECES + 1), rows);
        let pieces = up_to_multiple(cells, cells_per_block) / cells_per_block;
        Some(NormShape { samples, cells, channels, block: [packs, rows], cells_per_block, pieces })
    }

    pub(super) fn run(&self, launcher: &dyn Launcher, shape: NormShape) -> Result<Tensor, TchError> {
        let NormShape { samples, cells, channels, block: [packs, rows], cells_per_block, pieces } = shape;
        let partials = Tensor::f_empty([samples, pieces, self.groups, 2], (Kind::Float, self.x.device()))?;
        let out = self.x.f_empty_like()?;
        let map = Argument::Ints([cells, channels, self.groups, cells_per_block].map(|value| value as i32));
        let (grid, block) = ([pieces as u32, samples as u32], [packs as u32, rows as u32]);
        let (x, shift) = (address(self.x), self.shift.map_or(Argument::Address(ptr::null_mut()), address));
        launcher.launch(&Launch {
            kernel: kernel("group_norm_statistics", self.x),
            grid,
            block,
            shared_bytes: (rows * channels * 8) as u32,
            arguments: vec![x, shift, address(&partials), map],
        })?;
        let (weight, bias, out_address) = (address(self.weight), address(self.bias), address(&out));
        let (eps, silu) = (Argument::Float(self.eps as f32), Argument::Int(i32::from(self.silu)));
        launcher.launch(&Launch {
            kernel: kernel("group_norm_apply", self.x),
            grid,
            block,
            shared_bytes: ((packs * rows + 2 * self.groups) * 4) as u32,
            arguments: vec![x, shift, weight, bias, address(&partials), out_address, map, eps, silu],
        })?;
        Ok(out)
    }
}

/// The smallest multiple that is not below `value`.
fn up_to_multiple(value: i64, of: i64) -> i64 {
    (value + of - 1) / of * of
}
