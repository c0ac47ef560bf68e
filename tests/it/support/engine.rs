//! The real engine, held before each step until the test lets it go on, and spoilt where a test asks for it.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use easel::{
    diffusion::{Canvas, Frame, StableDiffusion},
    dispatch::ports::{
        BatchKey, Begun, CanvasState, Engine, EngineError, IntoRgb, Line, ModelEvent, ModelReport, PaintOrder, Prepared,
        PromptLookups,
    },
    domain::GenerationRequest,
};
use image::RgbImage;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

use super::PATIENCE;

/// The prompt at which the engine panics.
pub(crate) const PANICS_AT: &str = "panic";
/// The prompt whose previews are noise of 800 × 800 pixels, which no file format makes small.
pub(crate) const LARGE_PREVIEWS_AT: &str = "large previews";

/// Lets the engine of a test go on, step by step. Dropped, it stands open.
pub(crate) struct Gate {
    permits: mpsc::Sender<()>,
    arrivals: UnboundedReceiver<usize>,
    pub(crate) counts: Arc<Counts>,
}

/// The engine's side of a [`Gate`].
pub(crate) struct Keeper {
    permits: mpsc::Receiver<()>,
    arrivals: UnboundedSender<usize>,
    counts: Arc<Counts>,
    /// What a step takes by the engine's clock, however many share it. Nobody waits for it.
    step: Duration,
}

/// How often the engine was called.
#[derive(Default)]
pub(crate) struct Counts {
    steps: AtomicUsize,
    finishes: AtomicUsize,
}

impl Counts {
    /// Steps that were let through.
    pub(crate) fn steps(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }

    /// Calls of the VAE's decoder.
    pub(crate) fn finishes(&self) -> usize {
        self.finishes.load(Ordering::SeqCst)
    }
}

pub(crate) fn gate(step: Duration) -> (Gate, Keeper) {
    let (permit, permits) = mpsc::channel();
    let (arrival, arrivals) = unbounded_channel();
    let counts = Arc::<Counts>::default();
    let gate = Gate { permits: permit, arrivals, counts: counts.clone() };
    (gate, Keeper { permits, arrivals: arrival, counts, step })
}

impl Gate {
    /// Waits until the engine stands before a step; answers how many canvases are about to share it.
    pub(crate) async fn arrival(&mut self) -> usize {
        timeout(PATIENCE, self.arrivals.recv()).await.expect("the engine made no step").expect("the engine has gone")
    }

    /// Lets one step through.
    pub(crate) fn pass(&self) {
        self.permits.send(()).unwrap();
    }
}

/// The real engine behind a gate, which does not hold up its clock: that one knows steps alone.
pub(crate) struct TestEngine {
    engine: StableDiffusion,
    keeper: Keeper,
    start: Instant,
}

/// A canvas that remembers what it shows.
pub(crate) struct TestCanvas {
    canvas: Canvas,
    prompt: String,
}

/// The engine's pixels, or noise.
pub(crate) enum TestFrame {
    Real(Frame),
    Noise,
}

impl IntoRgb for TestFrame {
    fn into_rgb(self) -> Result<RgbImage, EngineError> {
        match self {
            Self::Real(frame) => frame.into_rgb(),
            Self::Noise => {
                let mut pixels = vec![0; 800 * 800 * 3];
                rand::fill(&mut pixels[..]);
                Ok(RgbImage::from_raw(800, 800, pixels).unwrap())
            }
        }
    }
}

impl TestEngine {
    pub(crate) fn new(engine: StableDiffusion, keeper: Keeper) -> Self {
        Self { engine, keeper, start: Instant::now() }
    }
}

impl CanvasState for TestCanvas {
    fn batch_key(&self) -> BatchKey {
        self.canvas.batch_key()
    }

    fn rows(&self) -> usize {
        self.canvas.rows()
    }

    fn pixels(&self) -> usize {
        self.canvas.pixels()
    }

    fn progress(&self) -> (u32, u32) {
        self.canvas.progress()
    }

    fn calls_left(&self) -> u32 {
        self.canvas.calls_left()
    }
}

impl Engine for TestEngine {
    type Canvas = TestCanvas;
    type Frame = TestFrame;
    type Model = <StableDiffusion as Engine>::Model;
    type Mark = Instant;

    fn prepare(&mut self, request: &GenerationRequest) -> Result<Prepared<Self::Model>, EngineError> {
        self.engine.prepare(request)
    }

    fn install(&mut self, model: &str, loaded: Result<Self::Model, EngineError>) -> Result<(), EngineError> {
        self.engine.install(model, loaded)
    }

    fn models(&self) -> Vec<ModelReport> {
        self.engine.models()
    }

    fn model_memory(&self) -> Option<u64> {
        self.engine.model_memory()
    }

    fn evict_idle(&mut self, stay: &[&str]) -> bool {
        self.engine.evict_idle(stay)
    }

    fn take_model_events(&mut self) -> Vec<ModelEvent> {
        self.engine.take_model_events()
    }

    fn begin(&mut self, order: &PaintOrder, images: Range<u32>) -> Result<Begun<TestCanvas>, EngineError> {
        let Begun { canvases, warnings } = self.engine.begin(order, images)?;
        let named = |canvas| TestCanvas { canvas, prompt: order.request.prompt.clone() };
        Ok(Begun { canvases: canvases.into_iter().map(named).collect(), warnings })
    }

    fn step(&mut self, canvases: &mut [&mut TestCanvas]) -> Result<Vec<Result<(), EngineError>>, EngineError> {
        // Errors are the gate's end: then it stands open.
        let _ = self.keeper.arrivals.send(canvases.len());
        let _ = self.keeper.permits.recv();
        self.keeper.counts.steps.fetch_add(1, Ordering::SeqCst);
        assert!(canvases.iter().all(|canvas| canvas.prompt != PANICS_AT), "a canvas that nobody can paint");
        self.engine.step(&mut canvases.iter_mut().map(|canvas| &mut canvas.canvas).collect::<Vec<_>>())
    }

    fn preview(&mut self, canvas: &TestCanvas) -> Result<Option<TestFrame>, EngineError> {
        if canvas.prompt == LARGE_PREVIEWS_AT {
            return Ok(Some(TestFrame::Noise));
        }
        Ok(self.engine.preview(&canvas.canvas)?.map(TestFrame::Real))
    }

    fn finish(&mut self, canvases: &[&TestCanvas]) -> Result<Vec<TestFrame>, EngineError> {
        self.keeper.counts.finishes.fetch_add(1, Ordering::SeqCst);
        let frames = self.engine.finish(&canvases.iter().map(|canvas| &canvas.canvas).collect::<Vec<_>>())?;
        Ok(frames.into_iter().map(TestFrame::Real).collect())
    }
    fn take_float32_retries(&mut self) -> u64 {
        self.engine.take_float32_retries()
    }

    fn take_prompt_lookups(&mut self) -> PromptLookups {
        self.engine.take_prompt_lookups()
    }

    fn now(&self) -> Instant {
        self.start + self.keeper.step * self.keeper.counts.steps() as u32
    }

    fn mark(&mut self, _: Line) -> Instant {
        self.now()
    }
}
