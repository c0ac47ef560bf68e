//! Takes request bodies in, with the memory that they need bounded before it is taken.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream, HttpBody},
    http::{HeaderMap, header},
};
use futures::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::ApiError;

/// Bodies up to this size are read at once; the memory of larger ones is reserved first.
const SMALL_BODY_BYTES: usize = 64 << 10;
/// How many bodies of the largest size may be in memory at a time.
const LARGE_BODIES: usize = 8;
/// How many bodies are parsed at a time. A picture takes up to 256 MiB while it is decoded.
const PARSERS: usize = 2;
const KIB: usize = 1024;
/// The longest that a large body waits for others to go.
const RESERVATION: Duration = Duration::from_secs(20);
/// How much of a refused body is still read, and for how long, so that a client that sends before it reads gets the answer.
const DISCARDED_BYTES: usize = 256 << 20;
const DISCARDING: Duration = Duration::from_secs(30);

/// The gate that request bodies come through.
#[derive(Debug)]
pub(super) struct Intake {
    max_body_bytes: usize,
    /// The longest that a body may take to arrive.
    arrival: Duration,
    /// In KiB, so that the count stays small.
    memory: Arc<Semaphore>,
    parsers: Arc<Semaphore>,
}

/// A body that has arrived. It holds its share of the memory for bodies until it is dropped.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) bytes: Vec<u8>,
    reservation: Option<OwnedSemaphorePermit>,
}

impl Upload {
    /// The bytes, and the reservation to hold as long as anything made from them lives.
    pub(super) fn into_parts(self) -> (Vec<u8>, Option<OwnedSemaphorePermit>) {
        (self.bytes, self.reservation)
    }
}

impl Intake {
    /// A gate for bodies of at most `max_body_bytes` that arrive within `arrival`.
    pub(super) fn new(max_body_bytes: usize, arrival: Duration) -> Self {
        let memory = (max_body_bytes.div_ceil(KIB) * LARGE_BODIES).clamp(1, Semaphore::MAX_PERMITS);
        let (memory, parsers) = (Arc::new(Semaphore::new(memory)), Arc::new(Semaphore::new(PARSERS)));
        Self { max_body_bytes, arrival, memory, parsers }
    }

    /// The right to parse a body.
    pub(super) async fn parser(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.parsers).acquire_owned().await.map_err(|closed| ApiError::Internal(closed.to_string()))
    }

    /// Reads a JSON body. One that is refused by its head alone is not read into memory at all.
    pub(super) async fn read_json(&self, headers: &HeaderMap, body: Body) -> Result<Upload, ApiError> {
        let expected = body.size_hint();
        let mut stream = body.into_data_stream();
        let result = self.admit(headers, expected.lower(), expected.exact()).await;
        let result = match result {
            Ok(upload) => self.fill(upload, &mut stream).await,
            Err(error) => Err(error),
        };
        match &result {
            // One that has taken too long already is not waited for any more.
            Ok(_) | Err(ApiError::BodyTimeout { .. }) => {}
            Err(_) => decline(headers, stream),
        }
        result
    }

    /// Checks a body's head and reserves its memory.
    async fn admit(&self, headers: &HeaderMap, at_least: u64, exact: Option<u64>) -> Result<Upload, ApiError> {
        check_content_type(headers)?;
        let max = self.max_body_bytes;
        if usize::try_from(at_least).map_or(true, |bytes| bytes > max) {
            return Err(ApiError::BodyTooLarge { max });
        }
        // A body of unknown length may become as large as is allowed.
        let length = exact.and_then(|bytes| usize::try_from(bytes).ok());
        let reservation = self.reserve(length.unwrap_or(max)).await?;
        Ok(Upload { bytes: Vec::with_capacity(length.unwrap_or(0)), reservation })
    }

    async fn reserve(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if bytes <= SMALL_BODY_BYTES {
            return Ok(None);
        }
        let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        let permits = timeout(RESERVATION, Arc::clone(&self.memory).acquire_many_owned(kib)).await;
        permits.map_err(|_| ApiError::UploadsBusy)?.map(Some).map_err(|closed| ApiError::Internal(closed.to_string()))
    }

    async fn fill(&self, mut upload: Upload, stream: &mut BodyDataStream) -> Result<Upload, ApiError> {
        let max = self.max_body_bytes;
        let filling = async {
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|error| ApiError::BrokenBody(error.to_string()))?;
                if upload.bytes.len() + chunk.len() > max {
                    return Err(ApiError::BodyTooLarge { max });
                }
                upload.bytes.extend_from_slice(&chunk);
            }
            Ok(())
        };
        timeout(self.arrival, filling).await.map_err(|_| ApiError::BodyTimeout { seconds: self.arrival.as_secs() })??;
        Ok(upload)
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(ApiError::UnsupportedMediaType("none".to_owned()));
    };
    let value = String::from_utf8_lossy(value.as_bytes());
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json { Ok(()) } else { Err(ApiError::UnsupportedMediaType(value.chars().take(100).collect())) }
}

/// Lets the client of a refused body finish, so that it reads the answer. One that asked with `Expect: 100-continue` waits for the
/// answer and sends nothing.
pub(super) fn decline(headers: &HeaderMap, stream: BodyDataStream) {
    if !stream.is_end_stream() && !headers.contains_key(header::EXPECT) {
        tokio::spawn(discard(stream));
    }
}

async fn discard(mut stream: BodyDataStream) {
    let mut left = DISCARDED_BYTES;
    let discarding = async {
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whether it came to its end or not, the connection's own end follows.
    let _ = timeout(DISCARDING, discarding).await;
}
