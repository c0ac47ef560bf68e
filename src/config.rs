//! The settings: `config/default.toml`, then the user's file, then `EASEL__SECTION__KEY` variables.

use std::path::{Path, PathBuf};

use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::Deserialize;

const DEFAULTS: &str = include_str!("../config/default.toml");

/// Every setting. What each means, its unit and its default stand in `config/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[pictures]`
    pub pictures: PicturesConfig,
    /// `[device]`
    pub device: DeviceConfig,
    /// `[dispatch]`
    pub dispatch: DispatchConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[[models]]`
    pub models: Vec<ModelConfig>,
}

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct ServerConfig {
    pub bind: String,
    pub max_body_bytes: usize,
    pub max_wait_seconds: u64,
    pub keep_alive_seconds: u64,
    pub drain_seconds: u64,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct StoreConfig {
    pub url: String,
}

/// `[pictures]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct PicturesConfig {
    pub url: String,
}

/// `[device]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct DeviceConfig {
    pub name: String,
    pub dtype: Dtype,
    pub batch_invariant: BatchInvariant,
    pub threads: usize,
}

/// `[device] dtype`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub enum Dtype {
    Auto,
    Float32,
    Bfloat16,
    Float16,
}

/// `[device] batch_invariant`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BatchInvariantValue")]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub enum BatchInvariant {
    Auto,
    Always,
    Never,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true, false or \"auto\"")]
enum BatchInvariantValue {
    Flag(bool),
    Word(String),
}

impl TryFrom<BatchInvariantValue> for BatchInvariant {
    type Error = String;

    fn try_from(value: BatchInvariantValue) -> Result<Self, String> {
        match value {
            BatchInvariantValue::Flag(true) => Ok(Self::Always),
            BatchInvariantValue::Flag(false) => Ok(Self::Never),
            BatchInvariantValue::Word(word) if word == "auto" => Ok(Self::Auto),
            BatchInvariantValue::Word(word) => Err(format!("expected true, false or \"auto\", got {word:?}")),
        }
    }
}

/// `[dispatch]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct DispatchConfig {
    pub lease_seconds: u64,
    pub max_attempts: u32,
    pub max_queued_jobs: u64,
    pub max_canvases: usize,
    pub max_step_rows: usize,
    pub max_step_pixels: usize,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: String,
}

/// `[log] format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub enum LogFormat {
    Auto,
    Pretty,
    Json,
}

/// One entry of `[[models]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct ModelConfig {
    pub name: String,
    pub path: PathBuf,
    pub guidance_scale: Option<f64>,
    pub max_size: Option<u32>,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that does not exist or a value of the wrong kind; says which and where it came from.
    #[error("{0}")]
    Invalid(#[from] Box<figment::Error>),
    /// A value that is out of its range.
    #[error("{key}: {problem}")]
    Range {
        /// The setting.
        key: &'static str,
        /// What is allowed.
        problem: String,
    },
    /// The file is not there.
    #[error("there is no configuration file {0}")]
    NoFile(PathBuf),
}

impl Config {
    /// Reads the settings; `file` is laid over the defaults, and `EASEL__SECTION__KEY` variables over both.
    ///
    /// # Errors
    /// Names the key that does not exist, or whose value is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(ConfigError::NoFile(file.to_owned()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let config: Self = figment.merge(Env::prefixed("EASEL__").split("__")).extract().map_err(Box::new)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let range = |key, problem: &str| Err(ConfigError::Range { key, problem: problem.to_owned() });
        if self.models.is_empty() {
            return range("models", "at least one model is needed");
        }
        if self.dispatch.max_canvases == 0 {
            return range("dispatch.max_canvases", "must be at least 1");
        }
        if self.dispatch.max_step_rows < 2 {
            return range("dispatch.max_step_rows", "must be at least 2, the rows of one canvas with guidance");
        }
        if self.dispatch.lease_seconds == 0 {
            return range("dispatch.lease_seconds", "must be at least 1");
        }
        if self.dispatch.max_attempts == 0 {
            return range("dispatch.max_attempts", "must be at least 1");
        }
        Ok(())
    }
}
