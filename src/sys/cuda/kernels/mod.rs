//! Easel's own kernels: what they are given, and how a launch of theirs divides the work. `fused.cu` has what they do.

mod group_norm;
mod layout;
mod pointwise;
mod scale_rows;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    ffi::c_void,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use tch::{Device, Kind, TchError, Tensor};

use self::layout::{KINDS, kernel_name};
pub use self::{
    group_norm::{GroupNormCall, group_norm},
    pointwise::{add_bias_residual, geglu},
    scale_rows::scale_rows_to_fp8,
};
use super::{
    driver::{Launch, Module, compute_capability},
    nvrtc::compile,
    stream::Stream,
    torch_error,
};

/// What is compiled for a GPU.
pub(super) const SOURCE: &str = concat!(include_str!("gpu.h"), include_str!("fused.cu"));
const KERNELS: [&str; 5] = ["group_norm_statistics", "group_norm_apply", "geglu", "add_bias_residual", "scale_rows"];

/// Starts kernels.
trait Launcher {
    fn launch(&self, launch: &Launch) -> Result<(), TchError>;
}

/// Whether there are kernels for a tensor's device.
pub fn has_kernels(tensor: &Tensor) -> bool {
    launcher(tensor).is_some()
}

/// What starts kernels for a tensor, if anything does.
fn launcher(tensor: &Tensor) -> Option<Box<dyn Launcher>> {
    #[cfg(test)]
    if let Some(emulator) = tests::emulator_for(tensor) {
        return Some(Box::new(emulator));
    }
    OnGpu::of(tensor).map(|gpu| -> Box<dyn Launcher> { Box::new(gpu) })
}

/// Kernels by the GPU that they are for.
type Modules = Vec<(usize, Arc<Module>)>;

/// The kernels of each GPU that has been prepared.
static MODULES: LazyLock<Mutex<Modules>> = LazyLock::new(Mutex::default);

/// Compiles the kernels for a GPU, so that [`group_norm()`] and the others can be used there. Takes some seconds.
///
/// # Errors
/// Why they cannot be used; all goes on without them.
pub fn prepare_kernels(device: usize) -> Result<(), String> {
    // Brings the GPU's context up, and says whether streams can be asked for.
    drop(Tensor::f_zeros([1], (Kind::Float, Device::Cuda(device))).map_err(|error| error.to_string())?);
    // Makes that context this thread's, into which the module is loaded.
    Stream::current(device).map_err(|error| error.to_string())?;
    let code = compile(SOURCE, compute_capability(device)?)?;
    let names: Vec<String> = KINDS.iter().flat_map(|&kind| KERNELS.map(|name| kernel_name(name, kind))).collect();
    let module = Arc::new(Module::load(&code, &names)?);
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    modules.retain(|(other, _)| *other != device);
    modules.push((device, module));
    Ok(())
}

/// A GPU that has kernels, and the stream that they go to.
struct OnGpu {
    module: Arc<Module>,
    stream: *mut c_void,
}

impl OnGpu {
    fn of(tensor: &Tensor) -> Option<Self> {
        let Device::Cuda(device) = tensor.device() else { return None };
        let modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, module) = modules.iter().find(|(other, _)| *other == device)?;
        Some(Self { module: Arc::clone(module), stream: Stream::current(device).ok()?.handle().ok()? })
    }
}

impl Launcher for OnGpu {
    fn launch(&self, launch: &Launch) -> Result<(), TchError> {
        // SAFETY: every `Launch` has the arguments of its kernel in `fused.cu`, which the emulated tests hold it to. The addresses are those of
        // live tensors on this device, whose sizes, layouts and dtypes `group_norm.rs`, `pointwise.rs` and `scale_rows.rs` have looked at. A tensor that is
        // dropped behind the launch is only given to work behind it on the same stream.
        unsafe { self.module.launch(launch, self.stream) }.map_err(torch_error)
    }
}
