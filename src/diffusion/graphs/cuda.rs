//! Recording with CUDA graphs.

use std::sync::{Arc, Weak};

use tch::{Cuda, Tensor};

use super::{Recorder, Recording};
use crate::{
    diffusion::layers::Result,
    sys::{Graph, GraphPool, Stream, gpu_memory_reserved},
};

/// Runs on the stream that records, before the recording: what libraries make when they are first used there is no part of it.
const REHEARSALS: usize = 2;

/// Records what one GPU is told.
pub(in crate::diffusion) struct CudaRecorder {
    device: usize,
    /// The default stream cannot be recorded.
    stream: Stream,
    /// The memory of this recorder's graphs alone, so that it comes back when they have gone, whatever others there are; while they live.
    pool: Weak<GraphPool>,
}

impl CudaRecorder {
    /// For a GPU, on one of its streams that nothing else uses while this records.
    pub(in crate::diffusion) fn new(device: usize, stream: Stream) -> Self {
        Self { device, stream, pool: Weak::new() }
    }

    /// The pool that has graphs, or a new one: libtorch takes none into a pool whose graphs have all gone.
    fn pool(&mut self) -> Result<Arc<GraphPool>> {
        if let Some(pool) = self.pool.upgrade() {
            return Ok(pool);
        }
        let pool = Arc::new(GraphPool::new()?);
        self.pool = Arc::downgrade(&pool);
        Ok(pool)
    }
}

impl Recorder for CudaRecorder {
    type Graph = Graph;

    fn rehearse(&mut self, run: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        // Also the first call of a shape, though it may be the last: libtorch keeps the way that a convolution was first done in, and looks for
        // it before it asks whether to time them. What has run untuned would be recorded untuned.
        let _tuned = Tuned::begin();
        run()
    }

    fn record(&mut self, run: &dyn Fn() -> Result<Tensor>) -> Result<Recording<Graph>> {
        let tuned = Tuned::begin();
        for _ in 0..REHEARSALS {
            drop(self.stream.scope(run)?);
        }
        drop(tuned);
        // What comes next writes to what the rehearsals read.
        Stream::current(self.device)?.wait_for(self.stream)?;
        let before = gpu_memory_reserved(self.device)?;
        let (graph, output) = Graph::record(self.stream, &self.pool()?, run)?;
        Ok(Recording { graph, output, bytes: gpu_memory_reserved(self.device)?.saturating_sub(before) })
    }

    fn replay(&mut self, recording: &Recording<Graph>, _: &dyn Fn() -> Result<Tensor>) -> Result<()> {
        recording.graph.replay()
    }
}

/// While it lives, cuDNN times its ways to do a convolution that is new to it, and keeps the fastest. Not for calls that are never recorded.
struct Tuned;

impl Tuned {
    fn begin() -> Self {
        Cuda::cudnn_set_benchmark(true);
        Self
    }
}

impl Drop for Tuned {
    fn drop(&mut self) {
        Cuda::cudnn_set_benchmark(false);
    }
}
