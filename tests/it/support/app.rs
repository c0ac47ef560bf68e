//! The server in this process: the real wiring, the real engine on the demo model, a database and a folder of its own.

use std::{
    ops::Deref,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use easel::{
    app::{AppError, Application, engine_settings},
    config::{Config, Dtype},
    diffusion::StableDiffusion,
    dispatch::ports::{Engine, EngineError},
};
use reqwest::{
    Client, RequestBuilder, Response,
    header::{AUTHORIZATION, HeaderMap},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::{Events, Gate, PATIENCE, TestEngine, engine};

/// A running server, and a client without a key. Every test ends it with [`TestApp::finish`], which fails when a job is left that has
/// not ended.
pub(crate) struct TestApp {
    pub(crate) folder: TempDir,
    client: TestClient,
    shutdown: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<Result<(), AppError>>>,
}

/// Somebody who uses a server.
pub(crate) struct TestClient {
    pub(crate) url: String,
    pub(crate) http: Client,
    /// The jobs of all clients, each with the client that sees it.
    accepted: Arc<Mutex<Vec<(Client, String)>>>,
}

impl Deref for TestApp {
    type Target = TestClient;

    fn deref(&self) -> &TestClient {
        &self.client
    }
}

/// A server with the settings of the tests.
pub(crate) async fn spawn_app() -> TestApp {
    TestApp::with(|_| {}).await
}

/// The settings of the tests: one thread an operation, since the tests themselves run side by side.
pub(crate) fn test_config(folder: &Path) -> Config {
    let mut config = Config::load(None).unwrap();
    config.server.bind = "127.0.0.1:0".to_owned();
    config.store.url = format!("sqlite://{}/easel.db", folder.display());
    config.pictures.url = folder.join("pictures").display().to_string();
    config.device.name = "cpu".to_owned();
    config.device.dtype = Dtype::Float32;
    config.device.threads = 1;
    config.models[0].path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    config
}

impl TestApp {
    /// A server whose settings `change` changes.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = test_config(folder.path());
        change(&mut config);
        let settings = engine_settings(&config);
        Self::start(folder, config, move || Ok(StableDiffusion::load(&settings)?)).await
    }

    /// A server over the data that another has left.
    pub(crate) async fn over(folder: &TempDir) -> Self {
        Self::with(|config| {
            config.store.url = format!("sqlite://{}/easel.db", folder.path().display());
            config.pictures.url = folder.path().join("pictures").display().to_string();
        })
        .await
    }

    /// A server whose engine waits for the gate before each step.
    pub(crate) async fn gated(change: impl FnOnce(&mut Config)) -> (Self, Gate) {
        Self::gated_at(Duration::from_millis(1), change).await
    }

    /// As [`Self::gated`], where a step takes so long by the engine's clock. What is foreseen counts real time since the last step as well:
    /// a test that looks at it makes that count for nothing.
    pub(crate) async fn gated_at(step: Duration, change: impl FnOnce(&mut Config)) -> (Self, Gate) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = test_config(folder.path());
        change(&mut config);
        let (gate, keeper) = engine::gate(step);
        let settings = engine_settings(&config);
        let load = move || Ok(TestEngine::new(StableDiffusion::load(&settings)?, keeper));
        (Self::start(folder, config, load).await, gate)
    }

    /// A server whose engine is loaded when the sender is used or dropped.
    pub(crate) async fn loading(change: impl FnOnce(&mut Config)) -> (Self, oneshot::Sender<()>) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = test_config(folder.path());
        change(&mut config);
        let settings = engine_settings(&config);
        let (go, may_load) = oneshot::channel();
        let load = move || {
            // An error is the sender's end, which lets it load as well.
            let _ = may_load.blocking_recv();
            Ok(StableDiffusion::load(&settings)?)
        };
        (Self::start(folder, config, load).await, go)
    }

    async fn start<E: Engine>(
        folder: TempDir,
        config: Config,
        load: impl FnOnce() -> Result<E, EngineError> + Send + 'static,
    ) -> Self {
        let application = Application::build_with(config, load).await.unwrap();
        let url = format!("http://127.0.0.1:{}", application.port());
        let (shutdown, asked) = oneshot::channel();
        let server = tokio::spawn(application.run(async {
            let _ = asked.await;
        }));
        let http = Client::builder().read_timeout(PATIENCE).build().unwrap();
        let client = TestClient { url, http, accepted: Arc::default() };
        Self { folder, client, shutdown: Some(shutdown), server: Some(server) }
    }

    /// Whether the server has stopped, and how.
    pub(crate) async fn stop(mut self) -> (TempDir, Result<(), AppError>) {
        let _ = self.shutdown.take().unwrap().send(());
        let stopped = timeout(PATIENCE, self.server.take().unwrap()).await.expect("the server did not stop").unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        (folder, stopped)
    }

    /// How a server ends that cannot paint: by itself.
    pub(crate) async fn stop_when_lost(mut self) -> (TempDir, Result<(), AppError>) {
        let stopped = timeout(PATIENCE, self.server.take().unwrap()).await.expect("the server did not stop").unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        (folder, stopped)
    }

    /// Ends the server; fails when a job has not ended, or the server does not stop as it should.
    pub(crate) async fn finish(self) {
        let accepted = std::mem::take(&mut *self.accepted.lock().unwrap());
        for (http, path) in accepted {
            let answer = http.get(format!("{}{path}", self.url)).send().await.unwrap();
            if answer.status() == 410 {
                continue; // The test has removed it.
            }
            let job = json_of(answer, 200).await;
            assert!(!job["finished_at"].is_null(), "a job was left behind: {job}");
        }
        self.stop().await.1.unwrap();
    }
}

impl TestClient {
    /// Another client of the same server, who sends this key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {key}").parse().unwrap())]);
        let http = Client::builder().read_timeout(PATIENCE).default_headers(headers).build().unwrap();
        Self { url: self.url.clone(), http, accepted: self.accepted.clone() }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.http.request(method.parse().unwrap(), format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request("GET", path).send().await.unwrap()
    }

    /// Sends a POST that has been put together, and remembers the job that it brings.
    pub(crate) async fn send(&self, post: RequestBuilder) -> Response {
        let answer = post.send().await.unwrap();
        if let Some(location) = answer.headers().get("location") {
            let accepted = (self.http.clone(), location.to_str().unwrap().to_owned());
            self.accepted.lock().unwrap().push(accepted);
        }
        answer
    }

    pub(crate) async fn post(&self, body: &Value) -> Response {
        self.send(self.request("POST", "/v1/generate").json(body)).await
    }

    /// Submits a job that must be accepted; does not wait for it.
    pub(crate) async fn submit(&self, body: &Value) -> Value {
        json_of(self.post(body).await, 202).await
    }

    /// Submits a job that must be accepted, and watches it from before its first step: the queue stands still until the watcher is there.
    pub(crate) async fn submit_watched(&self, body: &Value) -> (Value, Events) {
        assert_eq!(self.request("POST", "/v1/queue/pause").send().await.unwrap().status(), 200);
        let job = self.submit(body).await;
        let events = self.watch(&job).await;
        assert_eq!(self.request("POST", "/v1/queue/resume").send().await.unwrap().status(), 200);
        (job, events)
    }

    /// Submits a job and waits for its end, whatever that is.
    pub(crate) async fn end_of(&self, body: &Value) -> Value {
        json_of(self.send(self.request("POST", "/v1/generate").header("prefer", "wait=60").json(body)).await, 200).await
    }

    /// Paints a job that must succeed.
    pub(crate) async fn paint(&self, body: &Value) -> Value {
        let job = self.end_of(body).await;
        assert_eq!(job["status"], "succeeded", "{job}");
        job
    }

    /// The job as it is now.
    pub(crate) async fn job(&self, job: &Value) -> Value {
        json_of(self.get(job["urls"]["self"].as_str().unwrap()).await, 200).await
    }

    /// The job when it has ended.
    pub(crate) async fn wait(&self, job: &Value) -> Value {
        self.watch(job).await.last().await.data
    }

    /// Waits until the job has been claimed.
    pub(crate) async fn until_running(&self, job: &Value) {
        let claimed = async { while self.job(job).await["status"] != "running" {} };
        timeout(PATIENCE, claimed).await.expect("the job was not claimed");
    }

    /// The job's event stream.
    pub(crate) async fn watch(&self, job: &Value) -> Events {
        Events::of(self.get(job["urls"]["events"].as_str().unwrap()).await)
    }

    pub(crate) async fn cancel(&self, job: &Value) -> Response {
        self.request("POST", job["urls"]["cancel"].as_str().unwrap()).send().await.unwrap()
    }

    /// The file of picture `index` of a job.
    pub(crate) async fn picture(&self, job: &Value, index: usize) -> Vec<u8> {
        let answer = self.get(job["images"][index]["url"].as_str().unwrap()).await;
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap().into()
    }

    /// The value of a metric, labels and all as `/metrics` writes them.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        assert!(self.server.is_none() || thread::panicking(), "a test must end its server with finish() or stop()");
    }
}

/// The JSON of an answer that must have this status.
pub(crate) async fn json_of(answer: Response, status: u16) -> Value {
    let got = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap()
}
