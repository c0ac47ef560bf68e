//! Why a command ended badly, and the exit code that says so.

use std::{error::Error, process::ExitCode};

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line or the settings are wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// What was asked for went wrong: exit code 1.
    #[error("{0}")]
    Failed(Box<dyn Error + Send + Sync>),
}

impl CliError {
    /// A failure, whatever kind of error it is.
    pub(super) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// 2 for a wrong command line or setting, 1 for everything else.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::from(1),
        }
    }
}
