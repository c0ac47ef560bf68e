//! The server under load: the real binary in a process of its own.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A running server; killed when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) url: String,
}

/// Finds a free port; it stays the same over restarts, so that clients need not be told.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts a server whose data is in `folder`, and waits until it is ready.
    pub(crate) async fn start(folder: &Path, port: u16, settings: &[(&str, &str)]) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_easel"))
            .arg("serve")
            .env("EASEL__SERVER__BIND", format!("127.0.0.1:{port}"))
            .env("EASEL__STORE__URL", format!("sqlite://{}/easel.db", folder.display()))
            .env("EASEL__PICTURES__URL", folder.join("pictures"))
            .env("EASEL__LOG__LEVEL", "warn")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, url: format!("http://127.0.0.1:{port}") };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&self) {
        let client = reqwest::Client::new();
        for _ in 0..600 {
            if client.get(format!("{}/readyz", self.url)).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the server was not ready within a minute");
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// `kill -9`: nothing of the server runs any more when this returns.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
