//! The clock of the queue.

use std::time::Instant;

use jiff::Timestamp;
use sqlx::SqlitePool;

use super::unavailable;
use crate::dispatch::ports::StoreError;

/// Tells the time of arrivals. It follows the system's clock at the start and then only goes forward at the pace of time, so that a
/// clock that is set while the server runs neither lets jobs overtake others nor holds them back.
#[derive(Debug)]
pub(super) struct QueueClock {
    start_ms: i64,
    started: Instant,
}

impl QueueClock {
    /// A clock that begins no earlier than the last arrival of a job that may still wait: the system's clock may have been set back
    /// while the server was away.
    pub(super) async fn start(pool: &SqlitePool) -> Result<Self, StoreError> {
        let last: Option<i64> = sqlx::query_scalar("SELECT max(arrived_ms) FROM jobs WHERE status IN ('queued', 'running')")
            .fetch_one(pool)
            .await
            .map_err(unavailable)?;
        let now = Timestamp::now().as_millisecond();
        Ok(Self { start_ms: last.map_or(now, |last| last.max(now)), started: Instant::now() })
    }

    /// Milliseconds; comparable with those of earlier runs.
    pub(super) fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.start_ms.saturating_add(elapsed)
    }
}
