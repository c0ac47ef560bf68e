//! How long a connection has kept the server waiting.
//!
//! hyper's own header timeout runs while a connection is idle, too, so that it cannot tell a client that sends a head byte by byte
//! from one that is done for now. This clock can.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::ServeSettings;

/// What one connection does. Shared by its stream, its requests and the task that may end it.
///
/// The lock keeps the state whole; it is held for a few instructions and never across an await.
#[derive(Debug)]
pub(super) struct Clock {
    settings: Arc<ServeSettings>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests whose bodies, their own or the answer's, are still held by somebody. The next one may begin before the last holder
    /// of the one before has let go.
    in_flight: usize,
    /// Since when nothing is in flight, or a head has begun to arrive.
    since: Instant,
    /// A head is awaited or has begun to arrive: so after connecting and after the first byte.
    in_head: bool,
    /// No request has come yet.
    is_new: bool,
    /// Whoever is to look at the deadline when nothing is in flight any more: the last holder may let go in a task of its own.
    waiting: Option<Waker>,
}

/// A request whose bodies somebody holds.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Clock>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let waiting = self.0.with(|state| {
            state.in_flight -= 1;
            if state.in_flight > 0 {
                return None;
            }
            (state.since, state.in_head) = (Instant::now(), false);
            state.waiting.take()
        });
        if let Some(alarm) = waiting {
            alarm.wake();
        }
    }
}

impl Clock {
    pub(super) fn new(settings: Arc<ServeSettings>) -> Arc<Self> {
        let state = State { in_flight: 0, since: Instant::now(), in_head: true, is_new: true, waiting: None };
        Arc::new(Self { settings, state: Mutex::new(state) })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A head has arrived.
    pub(super) fn begin(self: &Arc<Self>) -> Arc<InFlight> {
        self.with(|state| {
            state.in_flight += 1;
            state.is_new = false;
        });
        Arc::new(InFlight(self.clone()))
    }

    /// Bytes have come.
    pub(super) fn heard(&self) {
        self.with(|state| {
            if state.in_flight == 0 && !state.in_head {
                (state.since, state.in_head) = (Instant::now(), true);
            }
        });
    }

    /// Bytes have gone. The end of a large answer leaves when nobody holds its body any more; its client is not idle yet.
    pub(super) fn told(&self) {
        self.with(|state| {
            if state.in_flight == 0 && !state.in_head {
                state.since = Instant::now();
            }
        });
    }

    /// Whether no request has come yet.
    pub(super) fn is_new(&self) -> bool {
        self.with(|state| state.is_new)
    }

    /// When the connection is to be ended, if nothing happens; `None` while a request is in flight, whose own limits hold: the task of
    /// `context` is woken when none is any more.
    fn deadline(&self, context: &Context<'_>) -> Option<Instant> {
        let ServeSettings { header_timeout, idle_timeout, .. } = *self.settings;
        self.with(|state| {
            let patience = if state.in_head { header_timeout } else { idle_timeout };
            if state.in_flight > 0 {
                state.waiting = Some(context.waker().clone());
                return None;
            }
            Some(state.since + patience)
        })
    }
}

/// Fires when a connection has kept the server waiting for too long. To be polled after the connection itself, in the same task: what
/// that has changed about the deadline is then seen at once.
#[derive(Debug)]
pub(super) struct Alarm {
    clock: Arc<Clock>,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self { clock, sleep: Box::pin(sleep_until(Instant::now())) }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.clock.deadline(context) else { return Poll::Pending };
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
        }
        ready!(self.sleep.as_mut().poll(context));
        Poll::Ready(())
    }
}
