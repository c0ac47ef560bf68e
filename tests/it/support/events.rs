//! A reader of server-sent events.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use reqwest::Response;
use serde_json::Value;

/// One event of a stream.
#[derive(Debug, Clone)]
pub(crate) struct SseEvent {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// The events of a job, as they come.
pub(crate) struct Events {
    chunks: Pin<Box<dyn Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    unread: String,
}

impl Events {
    /// Reads an answer that must be an event stream.
    pub(crate) fn of(answer: Response) -> Self {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { chunks: Box::pin(answer.bytes_stream()), unread: String::new() }
    }

    /// The next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.unread = rest;
                return Some(parse(&block));
            }
            let chunk = self.chunks.next().await?.unwrap();
            self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Skips to the next event of this name.
    pub(crate) async fn until(&mut self, name: &str) -> SseEvent {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended without {name}"));
            if event.name == name {
                return event;
            }
        }
    }

    /// Every event to the stream's end.
    pub(crate) async fn all(mut self) -> Vec<SseEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// The last event of the stream.
    pub(crate) async fn last(self) -> SseEvent {
        self.all().await.pop().expect("an empty stream")
    }
}

/// The events of a stream that has been read to its end.
pub(crate) fn sse_events(stream: &str) -> Vec<SseEvent> {
    stream.split("\n\n").filter(|block| !block.trim().is_empty()).map(parse).collect()
}

/// Comments are skipped, as browsers do.
fn parse(block: &str) -> SseEvent {
    let field = |name: &str| {
        let mut values = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = values.next().unwrap_or_else(|| panic!("no {name} in {block:?}"));
        assert!(values.next().is_none(), "two lines of {name} in {block:?}");
        value.to_owned()
    };
    SseEvent { id: field("id").parse().unwrap(), name: field("event"), data: serde_json::from_str(&field("data")).unwrap() }
}
