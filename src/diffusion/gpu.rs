//! What a GPU is used with besides what libtorch does by itself: graphs, kernels of our own, a second stream.

use tch::{Device, Tensor};
use tracing::{info, warn};

use super::{
    device::PlacementPolicy,
    error::LoadError,
    graphs::{CudaRecorder, Graphs},
    layers::Result,
};
use crate::{
    dispatch::ports::Line,
    sys::{AttentionKernel, Event, Stream, only_attention, prepare_kernels, prepare_shim},
};

/// The recordings of one network may take one in this many bytes of the device's memory.
const GRAPHS_SHARE: u64 = 8;

/// What the settings say; `None` is: where it can be.
#[derive(Debug, Clone, Copy, Default)]
pub struct GpuSettings {
    /// Whether calls of a UNet are recorded and replayed.
    pub graphs: Option<bool>,
    /// Whether group norm, GEGLU and sums are done by kernels of our own.
    pub kernels: Option<bool>,
    /// How attention is computed; `None` leaves it to libtorch.
    pub attention: Option<AttentionKernel>,
}

/// A GPU with what is used of it. Of a CPU nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gpu {
    recorded: Option<Recorded>,
    /// Where pictures are decoded, beside the steps of other canvases.
    side: Option<Stream>,
}

/// How calls are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recorded {
    device: usize,
    /// Of all recorders. libtorch has 32 streams and gives them out in turns, so that one for each model would soon be the second stream.
    stream: Stream,
    /// For the recordings of a network.
    bytes: u64,
}

impl Gpu {
    /// Gets ready what the settings want and the device has.
    ///
    /// # Errors
    /// When something that must be used cannot be.
    pub(super) fn prepare(placement: PlacementPolicy, settings: GpuSettings) -> std::result::Result<Self, LoadError> {
        let Device::Cuda(device) = placement.device else {
            let attention = settings.attention.map(|_| true);
            let asked = [("cuda_graphs", settings.graphs), ("cuda_kernels", settings.kernels), ("cuda_attention", attention)];
            return match asked.into_iter().find(|(_, wanted)| *wanted == Some(true)) {
                Some((name, _)) => Err(LoadError::Device(format!("device.{name}: {:?} has none", placement.device))),
                None => Ok(Self::default()),
            };
        };
        let kernels = wanted("cuda_kernels", settings.kernels, || prepare_kernels(device))?;
        let recording = wanted("cuda_graphs", settings.graphs, || second_stream(device))?;
        if let Some(kernel) = settings.attention {
            only_attention(kernel).map_err(|problem| LoadError::Device(format!("device.cuda_attention: {problem}")))?;
        }
        let side = second_stream(device).ok();
        let (graphs, kernels) = (recording.is_some(), kernels.is_some());
        info!(graphs, kernels, second_stream = side.is_some(), "what the GPU is used with");
        let bytes = placement.memory() / GRAPHS_SHARE;
        Ok(Self { recorded: recording.map(|stream| Recorded { device, stream, bytes }), side })
    }

    /// Whether calls are recorded.
    pub(super) fn records(self) -> bool {
        self.recorded.is_some()
    }

    /// A place for the recordings of one network.
    pub(super) fn graphs(self) -> Option<Graphs<CudaRecorder>> {
        let Recorded { device, stream, bytes } = self.recorded?;
        Some(Graphs::new(CudaRecorder::new(device, stream), bytes))
    }

    /// Does `work`, which reads `input`, beside what the device is told otherwise; it comes behind all that it has been told before.
    ///
    /// # Errors
    /// `work`'s, and the device's.
    pub(super) fn aside<T, E: From<tch::TchError>>(
        self,
        input: &Tensor,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let Some(side) = self.side else { return work() };
        side.uses(input)?;
        side.scope(work)
    }

    /// An event behind what the GPU has been told of a line so far. None on a CPU; nor where there is no second stream: there only pictures
    /// are waited for, and all else counts as done when it has been told.
    pub(super) fn mark(self, line: Line) -> Option<Event> {
        let side = self.side?;
        let steps = Stream::current(side.device()).ok()?;
        let stream = match line {
            Line::Steps => steps,
            Line::Decodes => {
                // What is done aside begins no earlier, and that wait is no part of it.
                side.wait_for(steps).ok()?;
                side
            }
        };
        stream.record_time().ok()
    }

    /// Waits for what is done aside.
    pub(super) fn settle(self) -> Result<()> {
        self.side.map_or(Ok(()), |side| side.record()?.wait())
    }
}

/// A stream beside the default one.
fn second_stream(device: usize) -> std::result::Result<Stream, String> {
    prepare_shim()?;
    Stream::new(device).map_err(|error| error.to_string())
}

/// What is used if it is: nothing where the settings say so, nor, if they leave it open, where it cannot be had.
fn wanted<T>(
    name: &str,
    setting: Option<bool>,
    prepare: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<Option<T>, LoadError> {
    if setting == Some(false) {
        return Ok(None);
    }
    match (prepare(), setting) {
        (Ok(had), _) => Ok(Some(had)),
        (Err(problem), Some(_)) => Err(LoadError::Device(format!("device.{name}: true cannot be had: {problem}"))),
        (Err(problem), None) => {
            warn!(problem, "device.{name} is off");
            Ok(None)
        }
    }
}

/// Waits, when it is dropped, for what a GPU does aside: the first field of what must not be freed before.
#[derive(Debug)]
pub(super) struct SettlesFirst(pub(super) Gpu);

impl Drop for SettlesFirst {
    fn drop(&mut self) {
        // A device that fails here says so to the next who asks it.
        let _ = self.0.settle();
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::diffusion::device::Precision;

    fn on_cpu() -> PlacementPolicy {
        PlacementPolicy::choose("cpu", Precision::Auto, None).unwrap()
    }

    #[test]
    fn a_cpu_has_nothing_of_a_gpu_and_says_so_when_it_must_have() {
        let gpu = Gpu::prepare(on_cpu(), GpuSettings::default()).unwrap();
        assert_eq!(gpu, Gpu::default());
        assert!(gpu.graphs().is_none() && !gpu.records());
        let error = |settings| Gpu::prepare(on_cpu(), settings).unwrap_err().to_string();
        let kernels = error(GpuSettings { graphs: Some(false), kernels: Some(true), attention: None });
        assert!(kernels.contains("device.cuda_kernels") && kernels.contains("Cpu"), "{kernels}");
        let attention = error(GpuSettings { attention: Some(AttentionKernel::Flash), ..GpuSettings::default() });
        assert!(attention.contains("device.cuda_attention"), "{attention}");
    }

    #[test]
    fn what_cannot_be_had_is_left_out_unless_it_must_be() {
        let missing = || Err::<(), _>("libeasel_cuda.so: not found".to_owned());
        assert_eq!(wanted("cuda_graphs", None, missing).unwrap(), None);
        assert_eq!(wanted::<()>("cuda_graphs", Some(false), || unreachable!()).unwrap(), None);
        assert_eq!(wanted("cuda_graphs", Some(true), || Ok(7)).unwrap(), Some(7));
        let error = wanted("cuda_graphs", Some(true), missing).unwrap_err().to_string();
        assert!(error.contains("device.cuda_graphs") && error.contains("not found"), "{error}");
    }

    #[test]
    fn without_a_second_stream_work_aside_is_done_at_once() {
        let input = Tensor::from_slice(&[1.0, 2.0]);
        let sum: Result<Tensor> = Gpu::default().aside(&input, || input.f_sum(Kind::Double));
        assert_eq!(sum.unwrap().double_value(&[]), 3.0);
        Gpu::default().settle().unwrap();
    }
}
