//! Recording with CUDA graphs.

use tch::{Cuda, Tensor};

use super::{Recorder, Recording};
use crate::{
    diffusion::layers::Result,
    sys::{Graph, Stream, gpu_memory_reserved, prepare_shim},
};

/// Runs on the stream that records, before the recording: what libraries make when they are first used there is no part of it.
const REHEARSALS: usize = 2;

/// Records what one GPU is told.
pub(in crate::diffusion) struct CudaRecorder {
    device: usize,
    /// The default stream cannot be recorded.
    stream: Stream,
}

impl CudaRecorder {
    /// For a GPU.
    ///
    /// # Errors
    /// Why nothing can be recorded.
    pub(in crate::diffusion) fn new(device: usize) -> std::result::Result<Self, String> {
        prepare_shim()?;
        Ok(Self { device, stream: Stream::new(device).map_err(|error| error.to_string())? })
    }
}

impl Recorder for CudaRecorder {
    type Graph = Graph;

    fn rehearse(&mut self, run: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
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
        let (graph, output) = Graph::record(self.stream, run)?;
        Ok(Recording { graph, output, bytes: gpu_memory_reserved(self.device)?.saturating_sub(before) })
    }

    fn replay(&mut self, recording: &Recording<Graph>, _: &dyn Fn() -> Result<Tensor>) -> Result<()> {
        recording.graph.replay()
    }
}

/// While it lives, cuDNN times its ways to do a convolution that is new to it, and keeps the fastest. Not for calls whose shapes come once.
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
