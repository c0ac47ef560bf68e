//! The server's door: takes connections in, no more than may be open, and ends those that keep it waiting.

mod clock;
mod connection;
mod descriptors;

use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use prometheus::IntGauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long no connection is taken in after the system refused one, for want of file descriptors say: trying again at once would
/// take a core and help nobody.
const PAUSE: Duration = Duration::from_millis(250);
/// How often the log may say that the server is full.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What a connection may take.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// The most connections that may be open; more wait to be taken in.
    pub max_connections: usize,
    /// The longest that the head of a request may take to arrive; of a new connection, from its start.
    pub header_timeout: Duration,
    /// The longest that a connection may be silent between two requests.
    pub idle_timeout: Duration,
    /// The longest that a client may take in nothing of what it has asked for.
    pub write_timeout: Duration,
}

/// Serves until `hang_up`, then until every connection has ended; those without a request end at once.
pub async fn serve(listener: TcpListener, router: Router, settings: ServeSettings, open: IntGauge, hang_up: CancellationToken) {
    let mut door = Door::new(listener, settings.max_connections, open);
    let (settings, connections) = (Arc::new(settings), TaskTracker::new());
    loop {
        let (stream, place) = tokio::select! {
            biased;
            () = hang_up.cancelled() => break,
            taken_in = door.next() => taken_in,
        };
        let connection = connection::serve(stream, router.clone(), settings.clone(), hang_up.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(door);
    connections.close();
    connections.wait().await;
}

struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    open: IntGauge,
    said_full: Option<Instant>,
}

/// One open connection's place; free when it is dropped.
struct Place {
    open: IntGauge,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Door {
    fn new(listener: TcpListener, max_connections: usize, open: IntGauge) -> Self {
        let places = descriptors::for_connections(max_connections).min(Semaphore::MAX_PERMITS);
        Self { listener, places: Arc::new(Semaphore::new(places)), open, said_full: None }
    }

    /// The next connection, as soon as there is a place for it. Until then it waits in the system's queue.
    async fn next(&mut self) -> (TcpStream, Place) {
        let permit = match self.places.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_full) => {
                self.say_full();
                // The semaphore is never closed.
                self.places.clone().acquire_owned().await.ok()
            }
        };
        let stream = self.accept().await;
        self.open.inc();
        (stream, Place { open: self.open.clone(), _permit: permit })
    }

    fn say_full(&mut self) {
        if self.said_full.is_none_or(|said| said.elapsed() > SAY_AGAIN) {
            self.said_full = Some(Instant::now());
            tracing::warn!(connections = self.open.get(), "as many connections are open as may; new ones wait until one ends");
        }
    }

    async fn accept(&self) -> TcpStream {
        let mut is_failing = false;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                // The client has gone before its turn; the next one may be well.
                Err(error) if is_clients_own(&error) => {}
                Err(error) => {
                    if !is_failing {
                        tracing::error!(%error, "no connection can be taken in; trying again soon");
                    }
                    is_failing = true;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn is_clients_own(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}
