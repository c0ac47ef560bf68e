//! The motion, with a real store and an engine that fails on command.

mod admission;
mod clock;
mod disk;
mod endings;
mod engine;
mod faults;
mod flaky;
mod late;
mod models;
mod scheduling;
mod sharing;
mod shelf;
mod warm_up;
mod watching;

use std::{
    future::Future,
    io::Cursor,
    sync::{Arc, mpsc},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use easel::{
    dispatch::{
        DispatchSettings, Dispatcher, Doors, JobView, LocalEvents, RetentionSettings, StepLimits, Workers,
        ports::{EngineError, JobStore, Quotas},
    },
    domain::{JobId, ModelInfo, Origin, Owner, Submission},
    store::{ObjectPictures, SqliteStore},
    telemetry::Metrics,
};
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::model_info;
use clock::Clock;
use engine::{Call, Costs, FaultyEngine};
use flaky::{Disk, FlakyPictures};
use shelf::{MODELS, Shelf};

/// Far longer than anything takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a studio is to be set up.
struct Setup {
    settings: DispatchSettings,
    memory: usize,
    shelf: Shelf,
    preview_gate: Option<mpsc::Receiver<()>>,
    picture_gate: Option<mpsc::Receiver<()>>,
    load_error: Option<EngineError>,
    disk: Disk,
    costs: Costs,
    clock: Clock,
}

impl Default for Setup {
    fn default() -> Self {
        let settings = DispatchSettings {
            lease: Duration::from_secs(15),
            max_attempts: 5,
            max_queued_jobs: 100,
            max_canvases: 8,
            step: StepLimits { rows: 32, pixels: usize::MAX },
            drain: PATIENCE,
            ageing: Duration::from_secs(60),
            model_stay: Duration::from_secs(30),
            warm_up: None,
            quotas: Quotas::default(),
            retention: RetentionSettings {
                results: None,
                tombstones: PATIENCE,
                idempotency_keys: PATIENCE,
                period: PATIENCE,
                sweep_period: PATIENCE,
            },
        };
        Self {
            settings,
            memory: usize::MAX,
            shelf: Shelf::default(),
            preview_gate: None,
            picture_gate: None,
            load_error: None,
            disk: Disk::default(),
            costs: Costs::default(),
            clock: Clock::new(false),
        }
    }
}

/// A dispatcher with a database and a folder of its own, and the strings of its engine.
struct Studio {
    dispatcher: Dispatcher,
    workers: Workers,
    store: Arc<SqliteStore>,
    metrics: Metrics,
    folder: TempDir,
    calls: UnboundedReceiver<Call>,
    /// Lets one step through for each message, and all when it is dropped.
    gate: Option<mpsc::Sender<()>>,
    /// The engine is loaded when it is dropped.
    loading: Option<mpsc::Sender<()>>,
}

impl Studio {
    /// A studio whose engine is not loaded yet and whose steps wait at the gate.
    async fn closed(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&format!("sqlite://{}/easel.db", folder.path().display())).await.unwrap());
        Self::with_store(setup, store, folder).await
    }

    async fn with_store(setup: Setup, store: Arc<SqliteStore>, folder: TempDir) -> Self {
        let pictures = FlakyPictures {
            folder: ObjectPictures::open(folder.path().join("pictures").to_str().unwrap(), "jobs").await.unwrap(),
            disk: setup.disk,
        };
        let metrics = Metrics::new().unwrap();
        let events = Arc::new(LocalEvents::default());
        let doors = Doors { jobs: store.clone(), pictures: Arc::new(pictures), events, metrics: metrics.clone() };
        let (call, calls) = unbounded_channel();
        let (gate, gate_in_engine) = mpsc::channel();
        let (loading, load) = mpsc::channel::<()>();
        let Setup { settings, memory, shelf, preview_gate, picture_gate, load_error, disk: _, costs, clock } = setup;
        let (dispatcher, workers) = Dispatcher::start(doors, models(), settings, move || {
            let _ = load.recv();
            let engine =
                FaultyEngine { calls: call, gate: gate_in_engine, memory, shelf, preview_gate, picture_gate, costs, clock };
            load_error.map_or(Ok(engine), Err)
        });
        Self { dispatcher, workers, store, metrics, folder, calls, gate: Some(gate), loading: Some(loading) }
    }

    /// A studio whose engine is loaded and whose steps wait at the gate.
    async fn gated(setup: Setup) -> Self {
        let mut studio = Self::closed(setup).await;
        studio.load();
        studio
    }

    /// A studio that paints as fast as it can.
    async fn open(setup: Setup) -> Self {
        let mut studio = Self::gated(setup).await;
        studio.open_gate();
        studio
    }

    fn load(&mut self) {
        self.loading = None;
    }

    fn open_gate(&mut self) {
        self.gate = None;
    }

    fn let_one_step_through(&self) {
        self.gate.as_ref().unwrap().send(()).unwrap();
    }

    async fn submit(&self, body: Value) -> JobId {
        self.dispatcher.submit(submission(body), &Origin::default()).await.unwrap().view.job.id
    }

    /// The job when it has ended.
    async fn end_of(&self, id: JobId) -> JobView {
        let view = self.dispatcher.wait(&Owner::anonymous(), id, PATIENCE).await.unwrap();
        assert!(view.job.status.is_finished(), "still {:?}", view.job.status);
        view
    }

    async fn next_call(&mut self) -> Call {
        tokio::time::timeout(PATIENCE, self.calls.recv()).await.unwrap().unwrap()
    }

    /// Waits until a step begins, and answers the prompts of its canvases. Steps that begin later wait at the gate.
    async fn next_step(&mut self) -> Vec<String> {
        loop {
            if let Call::Step(prompts) = self.next_call().await {
                return prompts;
            }
        }
    }

    /// Submits a job of one picture in company: it is claimed while the device stands at the gate.
    async fn submit_in_company(&self, body: Value) -> JobId {
        let running = self.store.counts().await.unwrap().running;
        let job = self.submit(body).await;
        self.until_running(running + 1).await;
        job
    }

    /// Waits until the jobs that were submitted in company wait for the next step boundary: the claimer looks at the queue, and says what
    /// it has seen, when it has sent what it has claimed. Two at most, or it would wait for the device to make room.
    async fn until_sent(&self) {
        self.metrics.queue_depth.set(-1);
        until(async || self.metrics.queue_depth.get() >= 0).await;
    }

    /// Lets steps through until one of `canvases` canvases waits at the gate.
    async fn gather(&mut self, canvases: usize) {
        self.step_until(|prompts| prompts.len() == canvases).await;
    }

    /// Lets steps through until one that is wanted waits at the gate.
    async fn step_until(&mut self, is_wanted: impl Fn(&[String]) -> bool) {
        let stepped = async {
            while !is_wanted(&self.next_step().await) {
                self.let_one_step_through();
            }
        };
        tokio::time::timeout(PATIENCE, stepped).await.unwrap();
    }

    async fn until_running(&self, jobs: u64) {
        until(async || self.store.counts().await.unwrap().running == jobs).await;
    }

    /// Ends the workers, and answers what the engine was asked to do and nobody has looked at yet.
    async fn close(mut self) -> Vec<Call> {
        self.open_gate();
        self.load();
        self.workers.drain().await.unwrap();
        std::iter::from_fn(|| self.calls.try_recv().ok()).collect()
    }
}

/// Asks again and again, without sleeping, until the answer is yes.
async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let asked = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
}

/// What the fake engine serves; the first is the default.
fn models() -> Vec<ModelInfo> {
    MODELS.map(|name| ModelInfo { default_width: 64, default_height: 64, ..model_info(name) }).to_vec()
}

fn submission(body: Value) -> Submission {
    Submission::parse(body, &models(), 7).unwrap()
}

fn prompt(text: &str) -> Value {
    json!({"prompt": text, "num_inference_steps": 6})
}

/// A request with a picture to start from.
fn with_picture() -> Value {
    let mut file = Cursor::new(Vec::new());
    RgbImage::new(64, 64).write_to(&mut file, ImageFormat::Png).unwrap();
    json!({"prompt": "a house", "image": STANDARD.encode(file.into_inner())})
}

fn many_steps(text: &str) -> Value {
    json!({"prompt": text, "num_inference_steps": 150})
}
