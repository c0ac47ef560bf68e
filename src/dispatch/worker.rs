//! Starts the device's thread and the tasks around it, and ends them in order.

use std::{sync::Arc, thread, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    claimer,
    device::{Channels, Device},
    guard::{self, Lost, supervise},
    ports::{Engine, EngineError},
    previews, retention, settle,
    shared::{DeviceState, Shared},
    upkeep,
};

/// Claimed jobs that wait for the next step boundary.
const ORDERS: usize = 2;
/// Previews that wait to be drawn: few, so that they are fresh.
const PREVIEWS: usize = 8;

/// The device's thread and the tasks around it. Whoever holds them ends them with [`Workers::drain`].
#[derive(Debug)]
pub struct Workers {
    shared: Arc<Shared>,
    /// `None` when the system had no thread to give.
    device: Option<thread::JoinHandle<()>>,
    device_ended: CancellationToken,
    claimer: JoinHandle<()>,
    settler: JoinHandle<()>,
    releaser: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    retention: JoinHandle<()>,
}

impl Workers {
    pub(super) fn start<E: Engine>(shared: Arc<Shared>, load: impl FnOnce() -> Result<E, EngineError> + Send + 'static) -> Self {
        let (order, orders) = mpsc::channel(ORDERS);
        // As many pictures as the device holds may be settled beside those that it paints, and one job more may go over that. Each job
        // has a picture at least, so that this many jobs never fill the channel.
        let most_jobs = shared.settings.max_canvases.saturating_add(1).saturating_mul(2);
        let (end, ended) = mpsc::channel(most_jobs.min(Semaphore::MAX_PERMITS));
        let (preview, raw_previews) = mpsc::channel(PREVIEWS);
        let device_ended = CancellationToken::new();
        let thread = DeviceThread { shared: shared.clone(), channels: Channels { orders, ended: end, previews: preview } };
        let last_sign = device_ended.clone().drop_guard();
        let device = thread::Builder::new().name("easel-device".to_owned()).spawn(move || {
            let _last_sign = last_sign;
            thread.run(load);
        });
        let device = device.inspect_err(|error| shared.lose_device(EngineError::Failed(format!("no thread: {error}")))).ok();
        tokio::spawn(supervise(shared.clone(), "drawer of previews", previews::run(shared.clone(), raw_previews)));
        Self {
            device,
            device_ended,
            claimer: tokio::spawn(supervise(shared.clone(), "claimer", claimer::run(shared.clone(), order))),
            settler: tokio::spawn(supervise(shared.clone(), "settler", settle::run(shared.clone(), ended))),
            releaser: tokio::spawn(release_when_lost(shared.clone())),
            upkeep: tokio::spawn(supervise(shared.clone(), "keeper of leases", upkeep::run(shared.clone()))),
            retention: tokio::spawn(supervise(shared.clone(), "remover of old results", retention::run(shared.clone()))),
            shared,
        }
    }

    /// Waits until the device can do nothing any more, and says why. Never ends while all is well.
    pub async fn failed(&self) -> EngineError {
        let mut device = self.shared.device.subscribe();
        loop {
            if let DeviceState::Lost(error) = &*device.borrow_and_update() {
                return error.clone();
            }
            if device.changed().await.is_err() {
                // Cannot be: `self` holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops: no new jobs, no new claims; running canvases finish within the settings' `drain`, the rest go back to the queue; every
    /// end that was reached is written; then the event streams end.
    ///
    /// # Errors
    /// Why the device was lost, if it was.
    pub async fn drain(self) -> Result<(), EngineError> {
        let Self { shared, device, device_ended, claimer, settler, releaser, upkeep, retention } = self;
        tracing::info!("draining");
        retention.abort();
        shared.draining.cancel();
        // Whatever takes longer than a lease would not be accepted any more.
        let patience = shared.settings.lease.max(Duration::from_secs(1));
        end(claimer, patience, "a store does not answer; what was being claimed goes back").await;
        let _ = timeout(shared.settings.drain, device_ended.cancelled()).await;
        // In time or not, in health or not: what the device still holds goes back.
        if timeout(patience, shared.hand_back()).await.is_err() {
            tracing::warn!("the store does not answer; jobs that were given back wait for their leases to run out");
        }
        // What is left takes one step, or the writing of files.
        join(device, &device_ended, patience).await;
        end(settler, patience, "a store does not answer; jobs that have just ended will run again").await;
        let state = shared.device.borrow().clone();
        let ended = if let DeviceState::Lost(error) = state {
            end(releaser, patience, "the store does not answer; jobs wait for their leases to run out").await;
            Err(error)
        } else {
            releaser.abort();
            Ok(())
        };
        upkeep.abort();
        shared.doors.events.close();
        ended
    }
}

/// Joins the device's thread, unless it is stuck in the engine.
async fn join(device: Option<thread::JoinHandle<()>>, ended: &CancellationToken, patience: Duration) {
    if timeout(patience, ended.cancelled()).await.is_err() {
        tracing::warn!("the device does not answer; leaving it behind");
    } else if device.is_some_and(|device| device.join().is_err()) {
        tracing::error!("the device's thread panicked");
    }
}

/// Waits for a task's end, and ends it when it takes too long.
async fn end(mut task: JoinHandle<()>, patience: Duration, delay: &str) {
    match timeout(patience, &mut task).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "a task of the dispatcher has died"),
        Err(_) => {
            tracing::warn!("{delay}");
            task.abort();
        }
    }
}

/// Gives every job back as soon as the device is lost.
async fn release_when_lost(shared: Arc<Shared>) {
    let lost = shared.device.subscribe().wait_for(|state| matches!(state, DeviceState::Lost(_))).await.is_ok();
    if lost {
        shared.hand_back().await;
    }
}

/// What moves into the device's thread.
struct DeviceThread<F> {
    shared: Arc<Shared>,
    channels: Channels<F>,
}

impl<F> DeviceThread<F> {
    fn run<E: Engine<Frame = F>>(self, load: impl FnOnce() -> Result<E, EngineError>) {
        let shared = self.shared.clone();
        if let Err(reason) = self.load_and_paint(load) {
            shared.lose_device(reason);
        } else {
            shared.device.send_if_modified(|state| {
                let ends = *state == DeviceState::Ready;
                if ends {
                    *state = DeviceState::Stopped;
                }
                ends
            });
        }
    }

    fn load_and_paint<E: Engine<Frame = F>>(self, load: impl FnOnce() -> Result<E, EngineError>) -> Result<(), EngineError> {
        let engine = guard::catch(load)?;
        self.shared.device.send_if_modified(|state| {
            let loads = *state == DeviceState::Loading;
            if loads {
                *state = DeviceState::Ready;
            }
            loads
        });
        let device = Device::new(engine, self.shared, self.channels);
        // A panic outside the engine's calls is a bug of ours. It must end the process like a lost device, not leave it waiting.
        guard::catch(|| device.run().map_err(|Lost(reason)| reason))
    }
}
