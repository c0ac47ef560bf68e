//! `GET /v1/jobs/{id}/events`: a job's life as it happens, as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, sleep_until, timeout},
};

use super::{Context, auth::Client, error::ApiError, jobs::JobPath, sse, streams::OpenStream};
use crate::{
    dispatch::{DispatchError, Dispatcher, ports::Numbered},
    domain::{Event, EventId, JobId, Owner},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A piece of a stream that has become so large is sent before more is added to it.
const ENOUGH_BYTES: usize = 16 << 10;
const STREAM_HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-cache"),
    // nginx would otherwise hold events back until its buffer is full.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// Answers the stream; 204 to a watcher who has seen the job's last event, else a browser would reconnect for ever.
pub(super) async fn watch(
    State(context): State<Context>,
    client: Client,
    JobPath(id): JobPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let stream = context.streams.open(client.owner.clone())?;
    // Subscribe first, then read: what happens between the two is in the snapshot and comes as an event again, rather than never.
    let subscription = context.dispatcher.subscribe(id);
    let view = context.dispatcher.job(&client.owner, id).await?;
    let (start, end) = (EventId::start_of(view.job.attempts), EventId::end_of(view.job.attempts));
    if view.job.status.is_finished() {
        if last_event_id(&headers) >= Some(end) {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let blocks = [sse::snapshot(end.previous(), &view), sse::end(&view)];
        return Ok(respond(stream::iter(blocks)));
    }
    let last = subscription.last_id.map_or(start, |last| last.max(start));
    let snapshot = sse::snapshot(last, &view);
    let watcher = Watcher {
        dispatcher: context.dispatcher,
        owner: client.owner,
        job: id,
        events: subscription.events,
        last,
        keep_alive: context.settings.keep_alive,
        stream,
        not_before: Instant::now(),
        ended: false,
    };
    Ok(respond(stream::iter([snapshot]).chain(watcher.into_stream())))
}

fn respond(blocks: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    (STREAM_HEADERS, Body::from_stream(blocks.map(Ok::<_, Infallible>))).into_response()
}

fn last_event_id(headers: &HeaderMap) -> Option<EventId> {
    headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).and_then(EventId::parse)
}

/// One reader of one job's events. Progress may be lost on a reader that is slow, the end never is: whenever something may have
/// been missed, the stored job is asked.
struct Watcher {
    dispatcher: Dispatcher,
    owner: Owner,
    job: JobId,
    events: Receiver<Numbered>,
    last: EventId,
    keep_alive: Duration,
    stream: OpenStream,
    /// When the stream may be written to again.
    not_before: Instant,
    ended: bool,
}

impl Watcher {
    fn into_stream(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, async |mut watcher| {
            let blocks = watcher.next_blocks().await?;
            Some((blocks, watcher))
        })
    }

    /// What there is to tell, in one piece: each piece costs a reader and the server a wake-up.
    async fn next_blocks(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        sleep_until(self.not_before).await;
        let first = self.next_block().await?;
        self.not_before = Instant::now() + self.stream.breath();
        let mut blocks = vec![first];
        let mut bytes = blocks[0].len();
        while !self.ended && bytes < ENOUGH_BYTES {
            let Ok(numbered) = self.events.try_recv() else { break };
            let block = self.show(&numbered);
            bytes += block.as_ref().map_or(0, Bytes::len);
            blocks.extend(block);
        }
        Some(if blocks.len() == 1 { blocks.swap_remove(0) } else { blocks.concat().into() })
    }

    async fn next_block(&mut self) -> Option<Bytes> {
        while !self.ended {
            match timeout(self.keep_alive, self.events.recv()).await {
                Ok(Ok(numbered)) => {
                    if let Some(block) = self.show(&numbered) {
                        return Some(block);
                    }
                }
                Ok(Err(RecvError::Lagged(_))) => {
                    if let Some(block) = self.stored_end().await {
                        return Some(block);
                    }
                }
                // The server stops, or the bus forgot the job. A job that goes on elsewhere is found again by a reconnect.
                Ok(Err(RecvError::Closed)) => {
                    let block = self.stored_end().await;
                    self.ended = true;
                    return block;
                }
                Err(_quiet) => return Some(self.stored_end().await.unwrap_or(sse::KEEP_ALIVE)),
            }
        }
        None
    }

    /// The event's block, unless the snapshot has told it already.
    fn show(&mut self, numbered: &Numbered) -> Option<Bytes> {
        self.ended = matches!(numbered.event, Event::Finished(_));
        if numbered.id <= self.last && !self.ended {
            return None;
        }
        self.last = numbered.id;
        Some(sse::event(numbered))
    }

    /// The last block, if the stored job has ended.
    async fn stored_end(&mut self) -> Option<Bytes> {
        let view = match self.dispatcher.job(&self.owner, self.job).await {
            Ok(view) => view,
            // A job that has been removed has no end to tell.
            Err(DispatchError::Gone | DispatchError::UnknownJob) => {
                self.ended = true;
                return None;
            }
            Err(error) => {
                tracing::warn!(job.id = %self.job, error = %error, "cannot read a watched job");
                return None;
            }
        };
        self.ended = view.job.status.is_finished();
        self.ended.then(|| sse::end(&view))
    }
}
