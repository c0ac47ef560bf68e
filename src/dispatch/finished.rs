//! Finished pictures: from pixels that may still be on the device to files in the picture store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    guard,
    ports::{EngineError, IntoRgb, PictureKey, StoreError},
    running::Claim,
    settle::patiently,
    shared::Shared,
};
use crate::domain::{GenerationRequest, JobError, JobImage, Timings, infotext, sha256_hex};

/// Why pictures are not in the store.
pub(super) enum Unfinished {
    /// It is the job's own fault.
    Failed(JobError),
    /// The picture store does not answer.
    Store(StoreError),
    /// The device was lost before the pixels had come.
    DeviceLost(EngineError),
}

impl From<EngineError> for Unfinished {
    fn from(error: EngineError) -> Self {
        match error {
            lost @ EngineError::DeviceLost(_) => Self::DeviceLost(lost),
            other => Self::Failed(other.into()),
        }
    }
}

/// The files of a job's pictures, and what making them took.
struct Files {
    files: Vec<(JobImage, Bytes)>,
    decode: Duration,
    encode: Duration,
}

/// Stores every picture of a job, and books the time.
pub(super) async fn store<F: IntoRgb + Send + 'static>(
    shared: &Shared,
    claim: &Claim,
    frames: Vec<(u32, F)>,
    timings: &mut Timings,
) -> Result<Vec<JobImage>, Unfinished> {
    let request = claim.request.clone();
    let made = tokio::task::spawn_blocking(move || make_files(&request, frames)).await;
    let made = made.unwrap_or_else(|error| Err(EngineError::Panicked(error.to_string()).into()))?;
    let start = Instant::now();
    let mut images = Vec::with_capacity(made.files.len());
    for (image, file) in made.files {
        let key = PictureKey::Output { job: claim.job(), index: image.index, format: image.content_type };
        patiently(|| shared.doors.pictures.put(&key, file.clone())).await.map_err(Unfinished::Store)?;
        shared.outage.over();
        images.push(image);
    }
    timings.decode_ms += made.decode.as_secs_f64() * 1000.0;
    timings.store_ms += (made.encode + start.elapsed()).as_secs_f64() * 1000.0;
    Ok(images)
}

fn make_files<F: IntoRgb>(request: &Arc<GenerationRequest>, mut frames: Vec<(u32, F)>) -> Result<Files, Unfinished> {
    frames.sort_by_key(|(index, _)| *index);
    let mut made = Files { files: Vec::with_capacity(frames.len()), decode: Duration::ZERO, encode: Duration::ZERO };
    for (index, frame) in frames {
        let start = Instant::now();
        let rgb = guard::catch(|| frame.into_rgb())?;
        let decoded = Instant::now();
        let file = request.output.encode(&rgb, Some(&infotext(request, index)));
        let file = file.map_err(|error| Unfinished::Failed(JobError::new("encode_failed", error.to_string())))?;
        let image = JobImage {
            index,
            seed: request.image_seed(index),
            width: rgb.width(),
            height: rgb.height(),
            content_type: request.output.format,
            bytes: file.len() as u64,
            sha256: sha256_hex(&file),
        };
        made.decode += decoded.duration_since(start);
        made.encode += decoded.elapsed();
        made.files.push((image, file.into()));
    }
    Ok(made)
}
