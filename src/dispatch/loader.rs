//! Loads models beside the device's thread, one at a time.

use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    guard,
    ports::{EngineError, ModelLoad},
};

/// A model that has come, or why it has not.
pub(super) struct Arrival<M> {
    pub(super) model: String,
    pub(super) loaded: Result<M, EngineError>,
}

/// The threads that load models, of which there is one at a time.
pub(super) struct Loader<M> {
    arrived: UnboundedSender<Arrival<M>>,
    arrivals: UnboundedReceiver<Arrival<M>>,
    is_busy: bool,
}

impl<M: Send + 'static> Loader<M> {
    pub(super) fn new() -> Self {
        let (arrived, arrivals) = unbounded_channel();
        Self { arrived, arrivals, is_busy: false }
    }

    /// Whether a model is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Begins to load a model. A panic of the work becomes its error, as does a system that has no thread to give.
    pub(super) fn start(&mut self, ModelLoad { model, work }: ModelLoad<M>) {
        self.is_busy = true;
        let (arrived, name) = (self.arrived.clone(), model.clone());
        let spawned = thread::Builder::new().name("easel-loader".to_owned()).spawn(move || {
            let loaded = guard::catch(work);
            // Nobody takes it when the device's thread has ended meanwhile.
            let _ = arrived.send(Arrival { model: name, loaded });
        });
        if let Err(error) = spawned {
            let loaded = Err(EngineError::Failed(format!("no thread to load it: {error}")));
            let _ = self.arrived.send(Arrival { model, loaded });
        }
    }

    /// Waits for the model that is on its way.
    pub(super) async fn arrival(&mut self) -> Arrival<M> {
        match self.arrivals.recv().await {
            Some(arrival) => self.note(arrival),
            // Cannot be: `self` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// The model that has come since this was last asked.
    pub(super) fn try_arrival(&mut self) -> Option<Arrival<M>> {
        let arrival = self.arrivals.try_recv().ok()?;
        Some(self.note(arrival))
    }

    fn note(&mut self, arrival: Arrival<M>) -> Arrival<M> {
        self.is_busy = false;
        arrival
    }
}
