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
mod origin;
mod picture;
mod request;
mod scheduler;

pub use error::{FieldError, JobError};
pub use event::{Event, EventId, Preview, Progress};
pub use family::{Family, Task};
pub use infotext::infotext;
pub use job::{Job, JobId, JobImage, JobStatus, Timings};
pub use model::{ModelInfo, SIDES, find_model};
pub use origin::{IdempotencyKey, Origin, Owner};
pub use picture::{
    Encoding, InputPicture, InputPictures, PictureError, PictureFormat, PictureRef, QUALITIES, decode_luma, decode_rgb, encode_png,
    luma_of, remake, sha256_hex,
};
pub use request::{
    AestheticScores, GUIDANCE_SCALES, GenerationRequest, Img2Img, Inpainting, MAX_RANDOM_SEED, MAX_SEED, Refiner, STEPS,
    SizeConditioning, Submission, micro_conditioning_fields,
};
pub use scheduler::{SchedulerAlgorithm, SchedulerName};
