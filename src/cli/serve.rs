//! `easel serve`: the server, from its settings to its drain.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{CliError, runtime};
use crate::{
    app::Application,
    config::{Config, LogFormat},
    telemetry::{LogStyle, init_logging},
};

/// What shells expect of a process that Ctrl-C has ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

pub(super) fn serve(config: Config) -> Result<(), CliError> {
    let style = match config.log.format {
        LogFormat::Auto => LogStyle::Auto,
        LogFormat::Pretty => LogStyle::Pretty,
        LogFormat::Json => LogStyle::Json,
    };
    init_logging(style, &config.log.level).map_err(|error| CliError::Usage(format!("settings: log.level: {error}")))?;
    runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let application = Application::build(config).await.map_err(CliError::failed)?;
        application.run(signals.received()).await.map_err(CliError::failed)
    })
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on, so that a signal during the start is not lost.
    fn listen() -> Result<Self, CliError> {
        let terminate = signal(SignalKind::terminate()).map_err(CliError::failed)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(CliError::failed)?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the first signal, after which the server drains. A second one ends the process at once: no job is lost by that.
    async fn received(mut self) {
        let signal = self.next().await;
        info!(signal, "draining; a second signal ends the server at once");
        tokio::spawn(async move {
            let signal = self.next().await;
            warn!(signal, "ended before the drain was done");
            std::process::exit(INTERRUPTED);
        });
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
