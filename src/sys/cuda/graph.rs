//! CUDA graphs: work that is recorded once and then started as a whole, in the place of a thousand launches.

use std::{mem, ptr, sync::Arc};

use tch::TchError;

use super::{
    shim::{Handle, answered, shim},
    stream::Stream,
};

/// The name of memory that graphs share. It comes back to the device when the last of them has gone; the name is then of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct GraphPool {
    first: u64,
    second: u64,
}

impl GraphPool {
    /// A pool without graphs.
    ///
    /// # Errors
    /// When there is no `libeasel_cuda.so`.
    pub fn new() -> Result<Self, TchError> {
        let mut pool = Self { first: 0, second: 0 };
        // SAFETY: it writes one GraphPool, whose layout both sides share, through a pointer that lives as long as the call.
        answered(unsafe { (shim()?.graph_pool)(&raw mut pool) })?;
        Ok(pool)
    }
}

/// Recorded work. It reads and writes the memory that it was recorded with.
#[derive(Debug)]
pub struct Graph {
    handle: Handle,
    /// Whoever has a weak one sees by it whether the pool still has graphs.
    pool: Arc<GraphPool>,
}

// SAFETY: CUDA's graphs belong to the process; the C++ object is used by one thread at a time, as this is not Sync.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` tells the GPU on `stream`, without doing it. All of the memory that it takes belongs to the pool, and is shared
    /// with its other graphs: what it answers must be read before the next of them runs.
    ///
    /// `work` must have been done on this stream before, and may neither wait for the device nor copy from pageable memory. Graphs and events are
    /// not dropped meanwhile.
    ///
    /// # Errors
    /// `work`'s, and the device's, which refuses what cannot be recorded. The stream is then as it was.
    pub fn record<T>(
        stream: Stream,
        pool: &Arc<GraphPool>,
        work: impl FnOnce() -> Result<T, TchError>,
    ) -> Result<(Self, T), TchError> {
        stream.scope(|| {
            let recording = Recording::begin(pool)?;
            let answer = work()?;
            Ok((recording.end()?, answer))
        })
    }

    /// Starts the recorded work on the current stream.
    ///
    /// # Errors
    /// The device's.
    pub fn replay(&self) -> Result<(), TchError> {
        // SAFETY: the graph is live and was recorded to its end.
        answered(unsafe { (shim()?.graph_replay)(self.handle) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(shim) = shim() {
            // SAFETY: `Recording::begin` made it, and nothing uses it any more.
            unsafe { (shim.graph_free)(self.handle) };
        }
    }
}

/// A graph that is being recorded. Dropped before its end, by an error or a panic, it ends the recording and throws it away.
struct Recording(Graph);

impl Recording {
    fn begin(pool: &Arc<GraphPool>) -> Result<Self, TchError> {
        let mut handle = ptr::null_mut();
        // SAFETY: it writes one pointer through a pointer that lives as long as the call; a pool is a pair of numbers that C++ checks.
        answered(unsafe { (shim()?.graph_begin)(**pool, &raw mut handle) })?;
        Ok(Self(Graph { handle, pool: Arc::clone(pool) }))
    }

    fn end(mut self) -> Result<Graph, TchError> {
        // A null graph is one that needs no end; freeing it does nothing.
        let graph = Graph { handle: mem::replace(&mut self.0.handle, ptr::null_mut()), pool: Arc::clone(&self.0.pool) };
        end(&graph)?;
        Ok(graph)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.0.handle.is_null() {
            // Why there is an end is told by what brought it about.
            let _ = end(&self.0);
        }
    }
}

fn end(graph: &Graph) -> Result<(), TchError> {
    // SAFETY: the graph is live, and its recording was begun on this thread's current stream.
    answered(unsafe { (shim()?.graph_end)(graph.handle, *graph.pool) })
}

/// Bytes that libtorch has taken of a GPU's memory.
///
/// # Errors
/// When there is no such device, or no `libeasel_cuda.so`.
pub fn gpu_memory_reserved(device: usize) -> Result<u64, TchError> {
    memory(device).map(|(now, _)| now)
}

/// The most bytes that libtorch has had of a GPU's memory since this was last asked.
///
/// # Errors
/// As [`gpu_memory_reserved`].
pub fn gpu_memory_peak(device: usize) -> Result<u64, TchError> {
    let (_, peak) = memory(device)?;
    // SAFETY: it takes a number, which C++ checks.
    answered(unsafe { (shim()?.memory_reset_peak)(device as i64) })?;
    Ok(peak)
}

fn memory(device: usize) -> Result<(u64, u64), TchError> {
    let (mut now, mut peak) = (0_i64, 0_i64);
    // SAFETY: it writes two numbers through pointers that live as long as the call.
    answered(unsafe { (shim()?.memory_reserved)(device as i64, &raw mut now, &raw mut peak) })?;
    Ok((now.unsigned_abs(), peak.unsigned_abs()))
}
