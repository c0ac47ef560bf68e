//! The real binary in a process of its own, for what only a process can show: kills, signals, exit codes.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::Value;
use tokio::time::timeout;

use super::{Disk, PATIENCE, sha256s};

/// The `easel` command with the settings of the tests, its data in `folder`.
pub(crate) fn easel(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_easel"));
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EASEL_")) {
        command.env_remove(name);
    }
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("EASEL__SERVER__BIND", "127.0.0.1:0")
        .env("EASEL__STORE__URL", format!("sqlite://{}/easel.db", folder.display()))
        .env("EASEL__PICTURES__URL", folder.join("pictures"))
        .env("EASEL__DEVICE__NAME", "cpu")
        .env("EASEL__DEVICE__THREADS", "1")
        .env("EASEL__LOG__FORMAT", "json");
    command
}

/// The same, started by another command that runs what stands behind it.
pub(crate) fn easel_by(mut starter: Command, folder: &Path) -> Command {
    let plain = easel(folder);
    starter.arg(plain.get_program()).current_dir(plain.get_current_dir().unwrap());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => starter.env(name, value),
            None => starter.env_remove(name),
        };
    }
    starter
}

/// Runs a command to its end, which must come.
pub(crate) fn run(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id().to_string();
    let (ends, output) = mpsc::channel();
    thread::spawn(move || ends.send(child.wait_with_output()));
    let output = output.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-KILL", &id]).status();
        panic!("{command:?} does not end")
    });
    output.unwrap()
}

/// A server in a process of its own; killed when dropped.
pub(crate) struct Process {
    process: Child,
    pub(crate) url: String,
    pub(crate) http: Client,
    pub(crate) folder: PathBuf,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts `easel serve` and waits until it listens.
    pub(crate) fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::spawn(easel(folder), folder, settings)
    }

    /// As [`Self::start`], with the data on a disk of the test's own.
    pub(crate) fn on(disk: &Disk, settings: &[(&str, &str)]) -> Self {
        Self::spawn(disk.easel(), disk.folder(), settings)
    }

    /// As [`Self::start`], by a command that the test has put together.
    pub(crate) fn spawn(mut command: Command, folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut process =
            command.arg("serve").envs(settings.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Mutex<String>>::default();
        let (listens, address) = mpsc::channel();
        let (lines, kept) = (BufReader::new(process.stderr.take().unwrap()).lines(), log.clone());
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(address) = address_of(&line) {
                    let _ = listens.send(address);
                }
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let address = address.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it does not listen:\n{}", log.lock().unwrap()));
        let http = Client::builder().read_timeout(PATIENCE).build().unwrap();
        Self { process, url: format!("http://{address}"), http, folder: folder.to_owned(), log }
    }

    /// What it has written to standard error.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Submits a job; `None` when the server went away before its answer.
    pub(crate) async fn submit(&self, body: &Value) -> Option<Value> {
        let answer = self.http.post(format!("{}/v1/generate", self.url)).json(body).send().await.ok()?;
        assert_eq!(answer.status(), 202);
        answer.json().await.ok()
    }

    /// The job as it is now.
    pub(crate) async fn job(&self, job: &Value) -> Value {
        self.http.get(format!("{}{}", self.url, job["urls"]["self"].as_str().unwrap())).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until the job's event stream has ended and answers the job.
    pub(crate) async fn wait(&self, job: &Value) -> Value {
        let events = self.http.get(format!("{}{}", self.url, job["urls"]["events"].as_str().unwrap())).send().await.unwrap();
        // Comments come as long as the stream is open, so that no single read would take too long.
        timeout(2 * PATIENCE, events.text()).await.expect("the job does not end").unwrap();
        self.job(job).await
    }

    /// The SHA-256 of the pictures of a job that must succeed.
    pub(crate) async fn paint(&self, body: &Value) -> Vec<String> {
        let job = self.submit(body).await.unwrap();
        let job = self.wait(&job).await;
        assert_eq!(job["status"], "succeeded", "{job}");
        sha256s(&job)
    }

    /// `kill -9`: nothing of it runs any more when this returns.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end:\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The address in the line that says where the server listens.
fn address_of(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["server.address"].as_str().map(str::to_owned)
}
