//! Writes the blocks of a job's `text/event-stream`.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::view::{JobJson, finished};
use crate::{
    dispatch::{JobView, ports::Numbered},
    domain::{Event, EventId},
};

/// One comment line without a blank line: at a blank line some clients take what they have read for an empty event.
pub(super) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n");

/// The job as it is, the first block of every stream.
pub(super) fn snapshot(id: EventId, view: &JobView) -> Bytes {
    block(id, "snapshot", &JobJson::from(view))
}

/// The last block of a stream: the job that has ended.
pub(super) fn end(view: &JobView) -> Bytes {
    block(EventId::end_of(view.job.attempts), view.job.status.as_str(), &JobJson::from(view))
}

/// What happened, in its own words. Written once, however many read it.
pub(super) fn event(numbered: &Numbered) -> Bytes {
    numbered.rendered.get_or_init(|| write(numbered.id, &numbered.event)).clone()
}

fn write(id: EventId, event: &Event) -> Bytes {
    match event {
        Event::Queued { queue_position, eta_seconds } => {
            block(id, "queued", &json!({ "queue_position": queue_position, "eta_seconds": eta_seconds }))
        }
        Event::Started => block(id, "started", &json!({})),
        Event::Progress(progress) => {
            let data = json!({
                "step": progress.step,
                "num_inference_steps": progress.num_inference_steps,
                "steps_per_second": progress.steps_per_second,
                "eta_seconds": progress.eta_seconds,
            });
            block(id, "progress", &data)
        }
        Event::Preview(preview) => {
            let data = json!({
                "step": preview.step,
                "index": preview.index,
                "width": preview.width,
                "height": preview.height,
                "content_type": "image/png",
                "b64": STANDARD.encode(&preview.png),
            });
            block(id, "preview", &data)
        }
        Event::Finished(job) => end(&finished(job.clone())),
    }
}

fn block(id: EventId, name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|error| {
        tracing::error!(event.name = name, error = %error, "cannot write an event");
        "null".to_owned()
    });
    format!("id: {}\nevent: {name}\ndata: {data}\n\n", id.get()).into()
}
