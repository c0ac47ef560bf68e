//! The functions of `libeasel_cuda.so`, which `easel_cuda.cpp` beside this file is the source of.

use std::{
    ffi::{CStr, c_char, c_void},
    sync::OnceLock,
};

use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};
use tch::{TchError, Tensor};

use super::{functions, graph::GraphPool, load_cuda, open, stream::Stream, torch_error};

/// Null, or what went wrong.
pub(super) type Answer = *const c_char;
/// What C++ keeps for us: an event or a graph.
pub(super) type Handle = *mut c_void;

/// The version of the interface that this program was written for.
const INTERFACE: i32 = 3;

functions! {
    /// What `easel_cuda.cpp` exports; see there.
    Shim {
        interface = "easel_cuda_interface": unsafe extern "C" fn() -> i32,
        stream_new = "easel_stream_new": unsafe extern "C" fn(i64, *mut Stream) -> Answer,
        stream_current = "easel_stream_current": unsafe extern "C" fn(i64, *mut Stream) -> Answer,
        stream_make_current = "easel_stream_make_current": unsafe extern "C" fn(Stream) -> Answer,
        stream_handle = "easel_stream_handle": unsafe extern "C" fn(Stream, *mut Handle) -> Answer,
        stream_uses = "easel_stream_uses": unsafe extern "C" fn(Stream, *const c_void) -> Answer,
        event_new = "easel_event_new": unsafe extern "C" fn(Stream, i32, *mut Handle) -> Answer,
        event_block = "easel_event_block": unsafe extern "C" fn(Handle, Stream) -> Answer,
        event_query = "easel_event_query": unsafe extern "C" fn(Handle, *mut i32) -> Answer,
        event_wait = "easel_event_wait": unsafe extern "C" fn(Handle) -> Answer,
        event_elapsed = "easel_event_elapsed": unsafe extern "C" fn(Handle, Handle, *mut f64) -> Answer,
        event_free = "easel_event_free": unsafe extern "C" fn(Handle),
        graph_pool = "easel_graph_pool": unsafe extern "C" fn(*mut GraphPool) -> Answer,
        graph_begin = "easel_graph_begin": unsafe extern "C" fn(GraphPool, *mut Handle) -> Answer,
        graph_end = "easel_graph_end": unsafe extern "C" fn(Handle, GraphPool) -> Answer,
        graph_replay = "easel_graph_replay": unsafe extern "C" fn(Handle) -> Answer,
        graph_free = "easel_graph_free": unsafe extern "C" fn(Handle),
        attention_kernels = "easel_attention_kernels": unsafe extern "C" fn(i32) -> Answer,
        memory_reserved = "easel_memory_reserved": unsafe extern "C" fn(i64, *mut i64, *mut i64) -> Answer,
        memory_reset_peak = "easel_memory_reset_peak": unsafe extern "C" fn(i64) -> Answer,
    }
}

/// Loads the library, once.
///
/// # Errors
/// Why graphs and streams cannot be used: the library is not beside `libtorch_cuda.so`, or is of another version of Easel.
pub fn prepare_shim() -> Result<(), String> {
    loaded().map(|_| ())
}

fn loaded() -> Result<&'static Shim, String> {
    static LOADED: OnceLock<Result<Shim, String>> = OnceLock::new();
    let load = || {
        load_cuda()?;
        let shim = Shim::load(open("libeasel_cuda.so", RTLD_NOW | RTLD_LOCAL)?)?;
        // SAFETY: it takes nothing and answers a number.
        let interface = unsafe { (shim.interface)() };
        match interface {
            INTERFACE => Ok(shim),
            other => Err(format!(
                "libeasel_cuda.so is of interface {other}, this program wants {INTERFACE}; `make libtorch-cuda` builds it anew"
            )),
        }
    };
    LOADED.get_or_init(load).as_ref().map_err(Clone::clone)
}

/// A way to compute attention on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKernel {
    /// FlashAttention 2
    Flash,
    /// The one that was xFormers'.
    MemoryEfficient,
    /// cuDNN's
    CuDnn,
}

/// Lets libtorch compute attention in this way only; plainly where it cannot.
///
/// # Errors
/// When there is no `libeasel_cuda.so`.
pub fn only_attention(kernel: AttentionKernel) -> Result<(), String> {
    const PLAIN: i32 = 8;
    let allowed = match kernel {
        AttentionKernel::Flash => 1,
        AttentionKernel::MemoryEfficient => 2,
        AttentionKernel::CuDnn => 4,
    };
    // SAFETY: it takes a number, and sets flags of libtorch's that are read when an attention is computed.
    answered(unsafe { (loaded()?.attention_kernels)(allowed | PLAIN) }).map_err(|error| error.to_string())
}

/// The loaded library.
pub(super) fn shim() -> Result<&'static Shim, TchError> {
    loaded().map_err(torch_error)
}

/// Turns the shim's answer into a result.
pub(super) fn answered(answer: Answer) -> Result<(), TchError> {
    if answer.is_null() {
        return Ok(());
    }
    // SAFETY: what is not null is a C string of the calling thread's, which lives until its next call.
    let problem = unsafe { CStr::from_ptr(answer) };
    Err(torch_error(problem.to_string_lossy()))
}

/// A tensor as C++ knows it.
pub(super) fn address_of(tensor: &Tensor) -> *const c_void {
    tensor.as_ptr().cast()
}
