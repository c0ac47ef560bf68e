//! Turns raw previews into files and publishes them, off the device's thread.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{guard, ports::IntoRgb, shared::Shared};
use crate::domain::{Event, JobId, Preview, encode_png};

/// A preview whose pixels may still be on the device.
pub(super) struct RawPreview<F> {
    pub(super) job: JobId,
    pub(super) index: u32,
    pub(super) step: u32,
    pub(super) frame: F,
}

/// Publishes previews one by one. The channel is short, so they are fresh; what does not fit into it is dropped before it is made.
pub(super) async fn run<F: IntoRgb + Send + 'static>(shared: Arc<Shared>, mut previews: mpsc::Receiver<RawPreview<F>>) {
    while let Some(raw) = previews.recv().await {
        let job = raw.job;
        match tokio::task::spawn_blocking(|| draw(raw)).await {
            Ok(Some(preview)) => shared.doors.events.publish(job, Event::Preview(preview)),
            Ok(None) => {}
            Err(error) => tracing::warn!(job.id = %job, %error, "a preview could not be drawn"),
        }
    }
}

fn draw<F: IntoRgb>(raw: RawPreview<F>) -> Option<Preview> {
    let rgb = guard::catch(|| raw.frame.into_rgb());
    let rgb = rgb.inspect_err(|error| tracing::warn!(job.id = %raw.job, %error, "a preview could not be read")).ok()?;
    let png =
        encode_png(&rgb, None).inspect_err(|error| tracing::warn!(job.id = %raw.job, %error, "a preview has no file")).ok()?;
    Some(Preview { step: raw.step, index: raw.index, width: rgb.width(), height: rgb.height(), png: png.into() })
}
