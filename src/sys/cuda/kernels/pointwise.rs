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

/// `hidden · gelu(gate)` of `[…, 2 · inner]`, hidden and gate side by side → `[…, inner]`. None as in [`super::group_norm()`].
pub fn geglu(projected: &Tensor) -> Option<Result<Tensor, TchError>> {
    Some(run_geglu(&*launcher(projected)?, projected, geglu_inner(projected)?))
}

/// Adds to a convolution's output `[N, C, H, W]` its bias `[C]` and a residual of its own size, in one pass over memory. None as in
/// [`super::group_norm()`]; nothing has been added then.
pub fn add_bias_residual(x: &mut Tensor, bias: &Tensor, residual: &Tensor) -> Option<Result<(), TchError>> {
    if !can_be_added(x, bias, residual) {
        return None;
    }
    Some(run_add(&*launcher(x)?, x, (bias, residual)))
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

/// Whether the kernel can do it.
pub(super) fn can_be_added(x: &Tensor, bias: &Tensor, residual: &Tensor) -> bool {
    let Some(pack) = pack_of(x) else { return false };
    let same = |tensor: &Tensor| tensor.kind() == x.kind() && tensor.device() == x.device();
    let maps = (channels_last(x), channels_last(residual));
    let (Some(size), true) = (maps.0, maps.0 == maps.1) else { return false };
    let has_bias = bias.size() == [size[1]] && bias.is_contiguous() && is_aligned(bias);
    same(bias) && same(residual) && has_bias && size[1] % pack == 0 && x.numel() > 0
}

pub(super) fn run_add(launcher: &dyn Launcher, x: &mut Tensor, (bias, residual): (&Tensor, &Tensor)) -> Result<(), TchError> {
    launcher.launch(&striding("add_bias_residual", x, bias.size()[0], vec![address(x), address(bias), address(residual)]))
}

/// A launch of a kernel that takes addresses, the packs of its output and the width of its rows.
fn striding(name: &str, out: &Tensor, width: i64, mut arguments: Vec<Argument>) -> Launch {
    let packs = out.numel() as i64 / pack_of(out).unwrap_or(1);
    arguments.extend([Argument::Long(packs), Argument::Int(width as i32)]);
    let blocks = ((packs + STRIDING_THREADS - 1) / STRIDING_THREADS).min(STRIDING_BLOCKS);
    Launch { kernel: kernel(name, out), grid: [blocks as u32, 1], block: [STRIDING_THREADS as u32, 1], shared_bytes: 0, arguments }
}
