//! Rows that are scaled into 8-bit floats.

use tch::{Kind, TchError, Tensor};

use super::{
    super::driver::{Argument, Launch},
    Launcher, launcher,
    layout::{address, is_aligned, kernel, pack_of},
};

/// Threads of a block, which does a row; a power of two.
const THREADS: i64 = 128;

/// The rows of `[rows, width]` as e4m3fn, each scaled so that its largest magnitude, or `least`, becomes 448; and what each row's values are
/// then multiples of, `[rows, 1]` float32. None as in [`super::group_norm()`].
pub fn scale_rows_to_fp8(x: &Tensor, least: f64) -> Option<Result<(Tensor, Tensor), TchError>> {
    Some(run_scale_rows(&*launcher(x)?, x, (can_be_scaled(x)?, least)))
}

/// Rows and width, where the kernel can do it.
fn can_be_scaled(x: &Tensor) -> Option<(i64, i64)> {
    let (rows, width) = x.size2().ok()?;
    let fits = x.is_contiguous() && is_aligned(x) && width % pack_of(x)? == 0 && x.numel() > 0;
    (fits && rows <= i64::from(i32::MAX) && width <= i64::from(i32::MAX)).then_some((rows, width))
}

fn run_scale_rows(
    launcher: &dyn Launcher,
    x: &Tensor,
    ((rows, width), least): ((i64, i64), f64),
) -> Result<(Tensor, Tensor), TchError> {
    let values = Tensor::f_empty([rows, width], (Kind::Float8e4m3fn, x.device()))?;
    let scale = Tensor::f_empty([rows, 1], (Kind::Float, x.device()))?;
    let sizes = [Argument::Int(width as i32), Argument::Float(least as f32)];
    launcher.launch(&Launch {
        kernel: kernel("scale_rows", x),
        grid: [rows as u32, 1],
        block: [THREADS as u32, 1],
        shared_bytes: THREADS as u32 * 4,
        arguments: [address(x), address(&values), address(&scale)].into_iter().chain(sizes).collect(),
    })?;
    Ok((values, scale))
}
