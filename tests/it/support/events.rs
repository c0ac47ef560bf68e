//! A reader of server-sent events.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use super::PATIENCE;

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
    /// So much of it holds no end of an event.
    searched: usize,
}

impl Events {
    /// Reads an answer that must be an event stream.
    pub(crate) fn of(answer: Response) -> Self {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { chunks: Box::pin(answer.bytes_stream()), unread: String::new(), searched: 0 }
    }

    /// The next event, which must come; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<SseEvent> {
        let event = async {
            loop {
                let block = self.next_block().await?;
                if !is_comment(&block) {
                    return Some(parse(&block));
                }
            }
        };
        timeout(PATIENCE, event).await.expect("no event comes, and the stream does not end")
    }

    /// What comes before the next empty line.
    async fn next_block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread[self.searched..].find("\n\n") {
                let rest = self.unread.split_off(self.searched + end + 2);
                let block = std::mem::replace(&mut self.unread, rest);
                self.searched = 0;
                return Some(block);
            }
            self.searched = self.unread.trim_end_matches('\n').len();
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
    stream.split("\n\n").filter(|block| !is_comment(block)).map(parse).collect()
}

/// Whether it is nothing but comments, which browsers skip: one comes when a stream has been quiet for a while.
fn is_comment(block: &str) -> bool {
    block.trim().lines().all(|line| line.starts_with(':'))
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
