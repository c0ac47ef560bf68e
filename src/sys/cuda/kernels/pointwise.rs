//! What is done value by value.

use tch::{TchError, Tensor};

use super::{
    super::driver::{Argument, Launch},
    Launcher, launcher,
    layout::{address, channels_last, is_aligned, kernel, pack_of},
};

/// Blocks of the kernels that go on with a stride.
const STRIDING_BLOCKS: i64 = 2112;
const STRIDING_THREADS: i64 = 256;

/// The sum of a convolution's output, its bias and a residual connection, all in channels-last layout.
#[derive(Debug)]
pub struct BiasResidual<'a> {
    /// `[N, C, H, W]`
    pub x: &'a Tensor,
    /// `[C]`
    pub bias: &'a Tensor,
    /// `[N, C, H, W]`
    pub residual: &'a Tensor,
}

/// `hidden · gelu(gate)` of `[…, 2 · inner]`, hidden and gate side by side → `[…, inner]`. None as in [`super::group_norm()`].
pub fn geglu(projected: &Tensor) -> Option<Result<Tensor, TchError>> {
    Some(run_geglu(&*launcher(projected)?, projected, geglu_inner(projected)?))
}

/// `x + bias + residual` in one pass over memory. None as in [`super::group_norm()`].
pub fn add_bias_residual(call: &BiasResidual) -> Option<Result<Tensor, TchError>> {
    if !call.is_fit() {
        return None;
    }
    Some(call.run(&*launcher(call.x)?))
}

/// The width of each half, where the kernel can do it.
pub(super) fn geglu_inner(projected: &Tensor) -> Option<i64> {
    let inner = projected.size().last()? / 2;
    let fits = projected.is_contiguous() && inner > 0 && inner % pack_of(projected)? == 0 && projected.size().last()? % 2 == 0;
    (fits && projected.numel() > 0 && is_aligned(projected)).then_some(inner)
}

pub(super) fn run_geglu(launcher: &dyn Launcher, projected: &Tensor, inner: i64) -> Result<Tensor, TchError> {
    let mut size = projected.size();
    size.iter_mut().last().into_iter().for_each(|last| *last = inner);
    let out = Tensor::f_empty(&size, (projected.kind(), projected.device()))?;
    launcher.launch(&striding("geglu", &out, inner, vec![address(projected), address(&out)]))?;
    Ok(out)
}

impl BiasResidual<'_> {
    pub(super) fn is_fit(&self) -> bool {
        let Some(pack) = pack_of(self.x) else { return false };
        let same = |tensor: &Tensor| tensor.kind() == self.x.kind() && tensor.device() == self.x.device();
        let maps = (channels_last(self.x), channels_last(self.residual));
        let (Some(size), true) = (maps.0, maps.0 == maps.1) else { return false };
        let has_bias = self.bias.size() == [size[1]] && self.bias.is_contiguous() && is_aligned(self.bias);
        same(self.bias) && same(self.residual) && has_bias && size[1] % pack == 0 && self.x.numel() > 0
    }

    pub(super) fn run(&self, launcher: &dyn Launcher) -> Result<Tensor, TchError> {
        let out = self.x.f_empty_like()?;
        let addresses = vec![address(self.x), address(self.bias), address(self.residual), address(&out)];
        launcher.launch(&striding("add_bias_residual", &out, self.bias.size()[0], addresses))?;
        Ok(out)
    }
}

/// A launch of a kernel that takes addresses, the packs of its output and the width of its rows.
fn striding(name: &str, out: &Tensor, width: i64, mut arguments: Vec<Argument>) -> Launch {
    let packs = out.numel() as i64 / pack_of(out).unwrap_or(1);
    arguments.extend([Argument::Long(packs), Argument::Int(width as i32)]);
    let blocks = ((packs + STRIDING_THREADS - 1) / STRIDING_THREADS).min(STRIDING_BLOCKS);
    Launch { kernel: kernel(name, out), grid: [blocks as u32, 1], block: [STRIDING_THREADS as u32, 1], shared_bytes: 0, arguments }
}
