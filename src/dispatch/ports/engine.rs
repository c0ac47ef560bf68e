//! The door to the engine.

use std::{ops::Range, sync::Arc, time::Instant};

use image::{GrayImage, RgbImage};

use super::{Line, Mark, ModelEvent, ModelReport, Prepared};
use crate::domain::{GenerationRequest, JobError, PictureError, Submission, decode_luma, decode_rgb};

/// Paints canvases. Owned by one OS thread, so its methods may block.
pub trait Engine: Send {
    /// One picture in progress. Owns all that its picture depends on.
    type Canvas: CanvasState;
    /// Pixels still on their way from the device; resolved off the device's thread.
    type Frame: IntoRgb + Send + 'static;
    /// A model that a thread of its own has read, on its way to the engine.
    type Model: Send + 'static;
    /// A place in what the device was told to do, by which its time is measured.
    type Mark: Mark;

    /// Asks that the models of a request be on the device, for a job that wants to begin. Models that no canvas uses leave for them, the
    /// least recently used first, as far as the memory for models demands it.
    ///
    /// # Errors
    /// When one of them cannot be loaded, or there is none of its name.
    fn prepare(&mut self, request: &GenerationRequest) -> Result<Prepared<Self::Model>, EngineError>;

    /// Takes what a [`Prepared::Load`] has brought, or why it has brought nothing.
    ///
    /// # Errors
    /// When the jobs that wait for the model must fail.
    fn install(&mut self, model: &str, loaded: Result<Self::Model, EngineError>) -> Result<(), EngineError>;

    /// Where each model is, in the order of the settings.
    fn models(&self) -> Vec<ModelReport>;

    /// The most bytes of weights that models may take together on the device, if that is known.
    fn model_memory(&self) -> Option<u64>;

    /// Lets the least recently used of the models go that no canvas uses and that are not in `stay`; answers whether there was one. Asked
    /// for when a call was out of memory.
    fn evict_idle(&mut self, stay: &[&str]) -> bool;

    /// What has happened to models since this was last asked.
    fn take_model_events(&mut self) -> Vec<ModelEvent>;

    /// Encodes the prompts and, for img2img, the picture, and makes one canvas for each picture of `images`. Its models are on the device:
    /// [`Self::prepare`] has just answered [`Prepared::Ready`].
    ///
    /// # Errors
    /// When the device fails.
    fn begin(&mut self, order: &PaintOrder, images: Range<u32>) -> Result<Begun<Self::Canvas>, EngineError>;

    /// Moves canvases of one batch key forward by one step, in one UNet call; answers for each canvas.
    ///
    /// # Errors
    /// The outer error means that no canvas has moved.
    fn step(&mut self, canvases: &mut [&mut Self::Canvas]) -> Result<Vec<Result<(), EngineError>>, EngineError>;

    /// A cheap small picture of what the canvas will be; `None` when its model has no latent-to-RGB factors.
    ///
    /// # Errors
    /// When the device fails.
    fn preview(&mut self, canvas: &Self::Canvas) -> Result<Option<Self::Frame>, EngineError>;

    /// Decodes finished canvases to pixels, in order.
    ///
    /// # Errors
    /// When the device fails.
    fn finish(&mut self, canvases: &[&Self::Canvas]) -> Result<Vec<Self::Frame>, EngineError>;

    /// How many encodes and decodes had to be repeated in float32, since this was last asked.
    fn take_float32_retries(&mut self) -> u64 {
        0
    }

    /// How many chunks of prompts were known from earlier requests and how many were not, since this was last asked.
    fn take_prompt_lookups(&mut self) -> PromptLookups {
        PromptLookups::default()
    }

    /// How many of the first steps of each kind and number of rows take longer than those that come after them.
    fn slow_first_calls(&self) -> u32 {
        1
    }

    /// The time of the thread that tells the device what to do.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// The place behind what the device has been told of this line so far. Work of a line that comes next begins here.
    fn mark(&mut self, line: Line) -> Self::Mark;
}

/// Chunks of prompts, by whether the text encoders had to read them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptLookups {
    /// Chunks that were known.
    pub hits: u64,
    /// Chunks that were not.
    pub misses: u64,
}

/// What the dispatcher may know of a canvas.
pub trait CanvasState {
    /// Canvases with the same key may share a step. May change between steps.
    fn batch_key(&self) -> BatchKey;
    /// Rows of the UNet call that the canvas takes: 2 with guidance, 1 without.
    fn rows(&self) -> usize;
    /// Pixels of its picture, which is what one row weighs: time and memory of a UNet call grow with it.
    fn pixels(&self) -> usize;
    /// The user's steps done, and to be done.
    fn progress(&self) -> (u32, u32);
    /// UNet calls that it still needs.
    fn calls_left(&self) -> u32;

    /// Whether the request's refiner has taken over.
    fn is_refined(&self) -> bool {
        false
    }

    /// Whether its next call runs the UNet's last layer only.
    fn is_shallow(&self) -> bool {
        false
    }

    /// Whether the last step is done.
    fn is_done(&self) -> bool {
        let (step, steps) = self.progress();
        step >= steps
    }
}

/// Pixels that may still be on the device.
pub trait IntoRgb {
    /// Waits for the pixels.
    ///
    /// # Errors
    /// When the device fails.
    fn into_rgb(self) -> Result<RgbImage, EngineError>;
}

/// A request with the pictures that it starts from, ready to paint.
#[derive(Debug, Clone)]
pub struct PaintOrder {
    /// What to paint.
    pub request: Arc<GenerationRequest>,
    /// The decoded picture of an img2img request, in its own size.
    pub init_image: Option<Arc<RgbImage>>,
    /// The decoded mask of an inpainting request, in its own size: 255 is painted anew, 0 stays.
    pub mask_image: Option<Arc<GrayImage>>,
}

impl PaintOrder {
    /// The order of a request that is painted where it was parsed, its pictures decoded.
    ///
    /// # Errors
    /// When a picture cannot be decoded.
    pub fn of(submission: Submission) -> Result<Self, PictureError> {
        let Submission { request, inputs, .. } = submission;
        Ok(Self {
            request: Arc::new(request),
            init_image: inputs.image.map(|input| decode_rgb(&input.bytes)).transpose()?.map(Arc::new),
            mask_image: inputs.mask_image.map(|input| decode_luma(&input.bytes)).transpose()?.map(Arc::new),
        })
    }
}

/// Canvases that have begun, and what the client should know about them.
#[derive(Debug)]
pub struct Begun<C> {
    /// One for each picture.
    pub canvases: Vec<C>,
    /// For example the part of a prompt that was too long and was cut.
    pub warnings: Vec<String>,
}

/// Names the canvases that may share a UNet call. Opaque: only equality means something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BatchKey(Arc<str>);

impl BatchKey {
    /// A key; equal texts are equal keys.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

/// What can go wrong on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The request names a model that is not served any more.
    #[error("no model named {0:?} is served")]
    UnknownModel(String),
    /// The model's files are missing, damaged or too large.
    #[error("the model {model:?} cannot be loaded: {reason}")]
    ModelUnavailable {
        /// The model.
        model: String,
        /// What is wrong; names the file or the tensor.
        reason: String,
    },
    /// The latents are no longer numbers.
    #[error("the picture's latents became NaN or infinite at step {step}")]
    NotFinite {
        /// The step, from 1.
        step: u32,
    },
    /// What the VAE makes is no picture.
    #[error("the picture became NaN or infinite in the VAE, in float32 as well")]
    PictureNotFinite,
    /// The device's memory does not suffice.
    #[error("the device is out of memory: {0}")]
    OutOfMemory(String),
    /// The device can do nothing any more until the process is started again.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The code panicked.
    #[error("the engine panicked: {0}")]
    Panicked(String),
    /// Anything else that libtorch reports.
    #[error("the engine failed: {0}")]
    Failed(String),
}

impl EngineError {
    /// The stable code of the job error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownModel(_) => "unknown_model",
            Self::ModelUnavailable { .. } => "model_unavailable",
            Self::NotFinite { .. } | Self::PictureNotFinite => "not_finite",
            Self::OutOfMemory(_) => "out_of_memory",
            Self::DeviceLost(_) => "device_lost",
            Self::Panicked(_) => "engine_panicked",
            Self::Failed(_) => "engine_failed",
        }
    }
}

impl From<EngineError> for JobError {
    fn from(error: EngineError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
