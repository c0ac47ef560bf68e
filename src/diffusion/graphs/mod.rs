//! A network's calls, recorded once for each shape and then replayed.
//!
//! A call of Stable Diffusion's UNet is a thousand launches, each a few microseconds of this thread's; an H100 has done what they ask for before
//! the next comes. A CUDA graph is one launch. It reads and writes always the same memory, so that inputs are copied to where it reads; and
//! it has one number of rows, so that there are buckets of them.
//!
//! A shape's first call runs as it is, its second is recorded. Nothing is recorded ahead: which sizes will be asked for is not known, a
//! recording costs some calls' time and is paid back within one picture, and a server is ready the sooner.

mod cuda;
mod inputs;
mod rows;
#[cfg(test)]
pub(super) mod tests;

use tch::{Kind, TchError, Tensor};
use tracing::warn;

pub(super) use self::cuda::CudaRecorder;
use self::{
    inputs::{copy_rows, padded},
    rows::bucket,
};
use super::{error::engine_error, layers::Result};
use crate::dispatch::ports::EngineError;

/// Shapes that are remembered though they have not come again.
const MOST_SEEN: usize = 64;

/// Calls that run as they are after one for whose recording there was no memory.
const CALLS_WITHOUT_MEMORY: u32 = 100;

/// What is recorded: inputs with rows first → an output with rows first.
pub(super) type Run<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Records what a device is told. The tests have one for the CPU, which runs everything again.
pub(super) trait Recorder {
    /// What has been recorded.
    type Graph;

    /// Runs what may be recorded later.
    fn rehearse(&mut self, run: &dyn Fn() -> Result<Tensor>) -> Result<Tensor>;

    /// Records `run`, which reads the same tensors whenever it runs.
    ///
    /// # Errors
    /// When it cannot be recorded.
    fn record(&mut self, run: &dyn Fn() -> Result<Tensor>) -> Result<Recording<Self::Graph>>;

    /// Does what was recorded, on what is now in the tensors that it reads.
    ///
    /// # Errors
    /// The device's.
    fn replay(&mut self, recording: &Recording<Self::Graph>, run: &dyn Fn() -> Result<Tensor>) -> Result<()>;
}

/// Recorded work.
pub(super) struct Recording<G> {
    pub(super) graph: G,
    /// Where the work writes its result.
    pub(super) output: Tensor,
    /// Of memory that the device had to take for it.
    pub(super) bytes: u64,
}

/// The recordings of one network. They hold addresses of its weights and so belong to it: they go when it goes.
pub(super) struct Graphs<R: Recorder> {
    recorder: R,
    /// For all recordings together.
    most_bytes: u64,
    /// The least recently used first.
    entries: Vec<Entry<R::Graph>>,
    has_failed: bool,
}

/// A shape that has been called.
struct Entry<G> {
    shape: Shape,
    /// Calls that still run as they are before one is recorded.
    plain_calls: u32,
    recorded: Option<Recorded<G>>,
}

struct Recorded<G> {
    /// What the recording reads.
    inputs: Vec<Tensor>,
    recording: Recording<G>,
}

/// Sizes and dtypes of the inputs, rows as many as their bucket has.
type Shape = Vec<(Vec<i64>, Kind)>;

impl<R: Recorder> Graphs<R> {
    /// None yet, and never more than `most_bytes` of them.
    pub(super) fn new(recorder: R, most_bytes: u64) -> Self {
        Self { recorder, most_bytes, entries: Vec::new(), has_failed: false }
    }

    /// `run(inputs)`, replayed where its shape has been recorded. Every input has as many rows, at least one.
    ///
    /// # Errors
    /// `run`'s and the device's. What cannot be recorded is no error: it then always runs as it is.
    pub(super) fn call(&mut self, inputs: &[Tensor], run: Run) -> Result<Tensor> {
        let count = rows_of(inputs)?;
        let Some(rows) = bucket(count).filter(|_| !self.has_failed) else { return self.with_room(|_| run(inputs)) };
        let shape = shape_of(inputs, rows);
        let place = self.entries.iter().position(|entry| entry.shape == shape);
        let mut entry = place.map_or(Entry { shape, plain_calls: 1, recorded: None }, |place| self.entries.remove(place));
        let output = self.answer(&mut entry, (inputs, rows), run)?;
        self.entries.push(entry);
        self.shrink();
        output.f_narrow(0, 0, count)
    }

    /// What `run` answers, as it answers before it is recorded.
    ///
    /// # Errors
    /// `run`'s.
    pub(super) fn rehearse(&mut self, run: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        self.recorder.rehearse(run)
    }

    /// On an error the entry is not kept.
    fn answer(&mut self, entry: &mut Entry<R::Graph>, (inputs, rows): (&[Tensor], i64), run: Run) -> Result<Tensor> {
        if entry.recorded.is_none() {
            let inputs = padded(inputs, rows)?;
            if entry.plain_calls > 0 {
                entry.plain_calls -= 1;
                return self.with_room(|recorder| recorder.rehearse(&|| run(&inputs)));
            }
            match self.recorder.record(&|| run(&inputs)) {
                Ok(recording) => entry.recorded = Some(Recorded { inputs, recording }),
                Err(problem) => {
                    self.do_without(entry, &problem);
                    return run(&inputs);
                }
            }
        }
        let Some(Recorded { inputs: read, recording }) = &entry.recorded else { return run(inputs) };
        for (from, to) in inputs.iter().zip(read) {
            copy_rows(from, to)?;
        }
        self.recorder.replay(recording, &|| run(read))?;
        // The next replay writes over it.
        recording.output.f_to_dtype(recording.output.kind(), true, true)
    }

    /// What cannot be recorded once cannot be recorded later: everything runs as it is from now on. Where only memory was missing, the
    /// recordings leave for what else needs it, and are made anew when they are asked for; this one not at once.
    fn do_without(&mut self, entry: &mut Entry<R::Graph>, problem: &TchError) {
        match engine_error(problem) {
            EngineError::OutOfMemory(problem) => {
                warn!(problem, "there was no memory to record a network's calls; they run as they are for a while");
                entry.plain_calls = CALLS_WITHOUT_MEMORY;
                self.let_go();
            }
            problem => {
                warn!(%problem, "a network's calls cannot be recorded; they run as they are");
                self.has_failed = true;
                self.entries.clear();
            }
        }
    }

    /// What runs as it is. Where memory is missing, the recordings' is the first that can be done without.
    fn with_room(&mut self, run: impl Fn(&mut R) -> Result<Tensor>) -> Result<Tensor> {
        match run(&mut self.recorder) {
            Err(problem) if matches!(engine_error(&problem), EngineError::OutOfMemory(_)) && self.let_go() => {
                run(&mut self.recorder)
            }
            answer => answer,
        }
    }

    /// Lets all recordings go; answers whether there were any.
    fn let_go(&mut self) -> bool {
        self.entries.iter_mut().filter_map(|entry| entry.recorded.take()).count() > 0
    }

    /// Lets the recordings go when they take too much, all of them: they share their memory, of which nothing comes back before the last has
    /// gone. That which was one too many is not made again at once. Forgets shapes that have not come again, too.
    fn shrink(&mut self) {
        if self.bytes() > self.most_bytes {
            self.let_go();
            self.entries.iter_mut().rev().take(1).for_each(|last| last.plain_calls = CALLS_WITHOUT_MEMORY);
        }
        let surplus = self.entries.len().saturating_sub(MOST_SEEN);
        self.entries.drain(..surplus);
    }

    fn bytes(&self) -> u64 {
        self.entries.iter().filter_map(|entry| entry.recorded.as_ref()).map(Recorded::bytes).sum()
    }
}

impl<G> Recorded<G> {
    fn bytes(&self) -> u64 {
        let inputs: usize = self.inputs.iter().map(|input| input.numel() * input.kind().elt_size_in_bytes()).sum();
        self.recording.bytes + inputs as u64
    }
}

/// How many rows there are; an error where the inputs have not all as many.
fn rows_of(inputs: &[Tensor]) -> Result<i64> {
    let rows = |input: &Tensor| input.size().first().copied().unwrap_or_default();
    let first = inputs.first().map_or(0, rows);
    if first < 1 || inputs.iter().any(|input| rows(input) != first) {
        let sizes: Vec<Vec<i64>> = inputs.iter().map(Tensor::size).collect();
        return Err(TchError::Shape(format!("a network's inputs have different numbers of rows: {sizes:?}")));
    }
    Ok(first)
}

fn shape_of(inputs: &[Tensor], rows: i64) -> Shape {
    let shape = |input: &Tensor| {
        let mut size = input.size();
        size[0] = rows;
        (size, input.kind())
    };
    inputs.iter().map(shape).collect()
}
