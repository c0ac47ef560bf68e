//! An engine that fails and dawdles on command, which a real one cannot do. Its pictures are a number that counts steps.
//!
//! The prompt says what goes wrong: `panic`, `nan`, `lost`, `begin panic`, `decode panic`; anything else paints.

use std::{
    ops::Range,
    sync::{Arc, mpsc::Receiver},
    thread,
    time::Instant,
};

use easel::{
    dispatch::ports::{
        BatchKey, Begun, CanvasState, Engine, EngineError, IntoRgb, Line, ModelEvent, ModelReport, PaintOrder, Prepared,
    },
    domain::GenerationRequest,
};
use image::{Rgb, RgbImage};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    clock::{Clock, Place},
    shelf::Shelf,
};

/// The step of a canvas at which what its prompt announces goes wrong, from 1.
const BAD_STEP: u32 = 20;
/// While steps wait at the gate, no canvas goes beyond this step, though it shares steps: so a test can let steps through until others
/// have joined, however long that takes.
const LAST_GATED_STEP: u32 = 15;

/// What the engine was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Begin(String, Range<u32>),
    /// The prompts of the canvases that share it; sent before the gate is waited for.
    Step(Vec<String>),
    Finish(Vec<String>),
    /// A model begins to come; sent before the gate of the loads is waited for.
    Load(String),
}

/// What work takes by the engine's own clock, in seconds. Nobody waits for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Costs {
    /// A step's own.
    pub step: f64,
    /// Of each row of 64 × 64 pixels, which is more for larger ones.
    pub row: f64,
    /// Of a decode.
    pub decode: f64,
}

impl Default for Costs {
    /// Rows pay: all that fit go together.
    fn default() -> Self {
        Self { step: 0.00001, row: 0.0, decode: 0.0 }
    }
}

pub(super) struct FaultyEngine {
    pub calls: UnboundedSender<Call>,
    /// Each step waits for one message; all are free when the sender is gone.
    pub gate: Receiver<()>,
    /// More canvases in one call do not fit into the memory; each model that nobody uses takes the room of one.
    pub memory: usize,
    pub shelf: Shelf,
    /// Previews stay stuck on the device until the sender is gone.
    pub preview_gate: Option<Receiver<()>>,
    /// The first picture that is finished stays stuck on the device until the sender is gone.
    pub picture_gate: Option<Receiver<()>>,
    pub costs: Costs,
    pub clock: Clock,
}

pub(super) struct Counter {
    _user: Arc<()>,
    prompt: String,
    key: BatchKey,
    pixels: usize,
    step: u32,
    steps: u32,
}

impl CanvasState for Counter {
    fn batch_key(&self) -> BatchKey {
        self.key.clone()
    }

    fn rows(&self) -> usize {
        2
    }

    fn pixels(&self) -> usize {
        self.pixels
    }

    fn progress(&self) -> (u32, u32) {
        (self.step, self.steps)
    }

    fn calls_left(&self) -> u32 {
        self.steps - self.step
    }
}

pub(super) struct Shade {
    level: u8,
    gate: Option<Receiver<()>>,
}

impl IntoRgb for Shade {
    fn into_rgb(self) -> Result<RgbImage, EngineError> {
        if let Some(gate) = self.gate {
            let _ = gate.recv();
        }
        assert_ne!(thread::current().name(), Some("easel-device"), "the device's thread waits for pixels and writes files");
        Ok(RgbImage::from_pixel(8, 8, Rgb([self.level; 3])))
    }
}

fn prompts<'a>(canvases: impl Iterator<Item = &'a Counter>) -> Vec<String> {
    canvases.map(|canvas| canvas.prompt.clone()).collect()
}

impl FaultyEngine {
    fn tell(&self, call: Call) {
        let _ = self.calls.send(call);
    }

    fn has_room_for(&self, canvases: usize) -> bool {
        canvases <= self.memory.saturating_sub(self.shelf.idle())
    }
}

impl Engine for FaultyEngine {
    type Canvas = Counter;
    type Frame = Shade;
    type Model = String;
    type Mark = Place;

    fn prepare(&mut self, request: &GenerationRequest) -> Result<Prepared<String>, EngineError> {
        let prepared = self.shelf.prepare(&request.model);
        if matches!(prepared, Prepared::Load(_)) {
            self.tell(Call::Load(request.model.clone()));
        }
        Ok(prepared)
    }

    fn install(&mut self, model: &str, loaded: Result<String, EngineError>) -> Result<(), EngineError> {
        self.shelf.install(model, loaded)
    }

    fn models(&self) -> Vec<ModelReport> {
        self.shelf.reports()
    }

    fn model_memory(&self) -> Option<u64> {
        self.shelf.memory()
    }

    fn evict_idle(&mut self, stay: &[&str]) -> bool {
        self.shelf.evict_idle(stay)
    }

    fn take_model_events(&mut self) -> Vec<ModelEvent> {
        Vec::new()
    }

    fn begin(&mut self, order: &PaintOrder, images: Range<u32>) -> Result<Begun<Counter>, EngineError> {
        let request = &order.request;
        self.tell(Call::Begin(request.prompt.clone(), images.clone()));
        assert_ne!(request.prompt, "begin panic");
        let shares: Vec<Arc<()>> = images.clone().map(|_| self.shelf.hold(&request.model)).collect();
        if !self.has_room_for(images.len()) {
            return Err(EngineError::OutOfMemory("too many pictures".to_owned()));
        }
        let canvas = |share| Counter {
            _user: share,
            prompt: request.prompt.clone(),
            key: BatchKey::new(&format!("{}/{}x{}", request.model, request.width, request.height)),
            pixels: request.width as usize * request.height as usize,
            step: 0,
            steps: request.effective_steps(),
        };
        Ok(Begun { canvases: shares.into_iter().map(canvas).collect(), warnings: vec!["a remark".to_owned()] })
    }

    fn step(&mut self, canvases: &mut [&mut Counter]) -> Result<Vec<Result<(), EngineError>>, EngineError> {
        self.tell(Call::Step(prompts(canvases.iter().map(|canvas| &**canvas))));
        let is_gated = self.gate.recv().is_ok();
        let weight: f64 = canvases.iter().map(|canvas| (canvas.rows() * canvas.pixels) as f64 / 4096.0).sum();
        self.clock.step(self.costs.step + self.costs.row * weight);
        if !self.has_room_for(canvases.len()) {
            return Err(EngineError::OutOfMemory("too many canvases".to_owned()));
        }
        let bad = |prompt: &str| canvases.iter().any(|canvas| canvas.prompt == prompt && canvas.step + 1 == BAD_STEP);
        assert!(!bad("panic"), "a bad tensor");
        if bad("lost") {
            return Err(EngineError::DeviceLost("the context is dead".to_owned()));
        }
        let results = canvases.iter_mut().map(|canvas| {
            if is_gated && canvas.step == LAST_GATED_STEP {
                return Ok(());
            }
            canvas.step += 1;
            let is_bad = canvas.prompt == "nan" && canvas.step == BAD_STEP;
            if is_bad { Err(EngineError::NotFinite { step: canvas.step }) } else { Ok(()) }
        });
        Ok(results.collect())
    }

    fn preview(&mut self, canvas: &Counter) -> Result<Option<Shade>, EngineError> {
        Ok(Some(Shade { level: canvas.step as u8, gate: self.preview_gate.take() }))
    }

    fn finish(&mut self, canvases: &[&Counter]) -> Result<Vec<Shade>, EngineError> {
        self.tell(Call::Finish(prompts(canvases.iter().copied())));
        self.clock.decode(self.costs.decode * canvases.len() as f64);
        assert!(canvases.iter().all(|canvas| canvas.prompt != "decode panic"));
        Ok(canvases.iter().map(|canvas| Shade { level: canvas.step as u8, gate: self.picture_gate.take() }).collect())
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn mark(&mut self, line: Line) -> Place {
        self.clock.place(line)
    }
}
