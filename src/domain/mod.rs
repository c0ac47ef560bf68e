//! The words of the house: what a request, a job, a status, an event and a model are.
//!
//! Pure: no I/O, no async, no tensors. Every other room imports this one and it imports none of them.

mod error;
mod event;
mod family;
mod fields;
mod infotext;
mod job;
mod model;
mod model_status;
mod origin;
mod picture;
mod prompt;
mod request;
mod scheduler;

pub use error::{FieldError, JobError};
pub use event::{Event, EventId, Preview, Progress};
pub use family::{Family, Task};
pub use infotext::infotext;
pub use job::{Job, JobId, JobImage, JobStatus, Timings};
pub use model::{ModelInfo, SIDES, SchedulerLimit, find_model};
pub use model_status::{ModelState, ModelStatus};
pub use origin::{IdempotencyKey, Origin, Owner};
pub use picture::{
    Encoding, InputPicture, InputPictures, PictureError, PictureFormat, PictureRef, QUALITIES, decode_luma, decode_rgb, encode_png,
    luma_of, remake, sha256_hex,
};
pub use prompt::{Branch, MAX_BRANCHES, MAX_NESTING, MAX_TEXTS, MAX_WEIGHT, Piece, Prompt, PromptError};
pub use request::{
    AestheticScores, GUIDANCE_SCALES, GenerationRequest, Img2Img, Inpainting, MAX_RANDOM_SEED, MAX_SEED, NoiseSource, PromptSyntax,
    Refiner, STEPS, SizeConditioning, Submission, micro_conditioning_fields,
};
pub use scheduler::{SchedulerAlgorithm, SchedulerName, SigmaSchedule};
