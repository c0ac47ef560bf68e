//! The settings: `config/default.toml`, then the user's file, then `EASEL__SECTION__KEY` variables.

mod auth;
mod model;

use std::{
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::Deserialize;

use model::check_models;

pub use auth::{AuthConfig, KeyConfig, key_name};
pub use model::{LoadTime, ModelConfig, PredictionTypeSetting};

/// In seconds: longer than anything is worth waiting for.
const TEN_YEARS: u64 = 10 * 365 * 86_400;
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Every setting. What each means, its unit and its default stand in `config/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[auth]`
    pub auth: AuthConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[pictures]`
    pub pictures: PicturesConfig,
    /// `[device]`
    pub device: DeviceConfig,
    /// `[dispatch]`
    pub dispatch: DispatchConfig,
    /// `[retention]`
    pub retention: RetentionConfig,
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
    pub header_timeout_seconds: u64,
    pub body_timeout_seconds: u64,
    pub idle_timeout_seconds: u64,
    pub write_timeout_seconds: u64,
    pub max_connections: usize,
    pub max_event_streams: usize,
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
    pub batch_invariant: AutoOr,
    pub cuda_graphs: AutoOr,
    pub cuda_kernels: AutoOr,
    pub cuda_attention: CudaAttention,
    pub warm_up: AutoOr,
    pub threads: usize,
    pub vae_tiling: Tiling,
    pub vae_memory_mib: u64,
    pub prompt_cache_mib: u64,
    pub prompt_kv_cache_mib: u64,
    pub model_memory_mib: u64,
    pub model_retry_seconds: u64,
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

/// `[device] cuda_attention`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub enum CudaAttention {
    Auto,
    Flash,
    MemoryEfficient,
    Cudnn,
}

/// `[device] vae_tiling`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub enum Tiling {
    Auto,
    Always,
    Never,
}

/// `[device] batch_invariant`, `cuda_graphs`, `cuda_kernels` and `warm_up`: true, false or "auto".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "AutoOrValue")]
pub struct AutoOr(
    /// None is "auto".
    pub Option<bool>,
);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true, false or \"auto\"")]
enum AutoOrValue {
    Flag(bool),
    Word(String),
}

impl TryFrom<AutoOrValue> for AutoOr {
    type Error = String;

    fn try_from(value: AutoOrValue) -> Result<Self, String> {
        match value {
            AutoOrValue::Flag(flag) => Ok(Self(Some(flag))),
            AutoOrValue::Word(word) if word == "auto" => Ok(Self(None)),
            AutoOrValue::Word(word) => Err(format!("expected true, false or \"auto\", got {word:?}")),
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
    pub ageing_seconds: u64,
    pub model_stay_seconds: u64,
}

/// `[retention]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct RetentionConfig {
    pub result_seconds: u64,
    pub removed_seconds: u64,
    pub idempotency_seconds: u64,
    pub check_seconds: u64,
    pub sweep_seconds: u64,
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
        key: String,
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

    /// What is out of range here would hang, panic or be refused later, far from the line that says it.
    fn check(&self) -> Result<(), ConfigError> {
        let Self { server, auth, device, dispatch, retention, models, .. } = self;
        check_server(server)?;
        auth.check()?;
        check_range("device.threads", device.threads, 0..=1024)?;
        check_range("device.vae_memory_mib", device.vae_memory_mib, 0..=1 << 24)?;
        check_range("device.prompt_cache_mib", device.prompt_cache_mib, 0..=1 << 24)?;
        check_range("device.prompt_kv_cache_mib", device.prompt_kv_cache_mib, 0..=1 << 24)?;
        check_range("device.model_memory_mib", device.model_memory_mib, 0..=1 << 24)?;
        check_range("device.model_retry_seconds", device.model_retry_seconds, 0..=86_400)?;
        check_range("dispatch.lease_seconds", dispatch.lease_seconds, 1..=3600)?;
        check_range("dispatch.max_attempts", dispatch.max_attempts, 1..=1000)?;
        check_range("dispatch.max_queued_jobs", dispatch.max_queued_jobs, 1..=1_000_000)?;
        check_range("dispatch.max_canvases", dispatch.max_canvases, 1..=1024)?;
        check_range("dispatch.max_step_rows", dispatch.max_step_rows, 2..=2048)?;
        check_range("dispatch.max_step_pixels", dispatch.max_step_pixels, 4096..=1_000_000_000)?;
        check_range("dispatch.ageing_seconds", dispatch.ageing_seconds, 1..=86_400)?;
        check_range("dispatch.model_stay_seconds", dispatch.model_stay_seconds, 0..=86_400)?;
        check_range("retention.result_seconds", retention.result_seconds, 0..=TEN_YEARS)?;
        check_range("retention.removed_seconds", retention.removed_seconds, 0..=TEN_YEARS)?;
        check_range("retention.idempotency_seconds", retention.idempotency_seconds, 60..=TEN_YEARS)?;
        check_range("retention.check_seconds", retention.check_seconds, 1..=86_400)?;
        check_range("retention.sweep_seconds", retention.sweep_seconds, 1..=TEN_YEARS)?;
        check_models(models)
    }
}

/// The error about a value that is of the right kind, and still no good.
fn wrong(key: String, problem: String) -> Result<(), ConfigError> {
    Err(ConfigError::Range { key, problem })
}

fn check_server(server: &ServerConfig) -> Result<(), ConfigError> {
    check_range("server.max_body_bytes", server.max_body_bytes, 1024..=1 << 30)?;
    check_range("server.max_wait_seconds", server.max_wait_seconds, 0..=3600)?;
    check_range("server.keep_alive_seconds", server.keep_alive_seconds, 1..=3600)?;
    check_range("server.drain_seconds", server.drain_seconds, 0..=86_400)?;
    check_range("server.header_timeout_seconds", server.header_timeout_seconds, 1..=3600)?;
    check_range("server.body_timeout_seconds", server.body_timeout_seconds, 1..=3600)?;
    check_range("server.idle_timeout_seconds", server.idle_timeout_seconds, 1..=86_400)?;
    check_range("server.write_timeout_seconds", server.write_timeout_seconds, 1..=3600)?;
    check_range("server.max_connections", server.max_connections, 1..=1_000_000)?;
    check_range("server.max_event_streams", server.max_event_streams, 1..=1_000_000)
}

fn check_range<T: PartialOrd + Display>(key: &str, value: T, allowed: RangeInclusive<T>) -> Result<(), ConfigError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    wrong(key.to_owned(), format!("must be from {} to {}, got {value}", allowed.start(), allowed.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("easel.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_out_of_its_range_is_an_error_that_names_key_and_range() {
        for (section, key, bad, range) in [
            ("server", "max_body_bytes", "1023", "1024 to 1073741824"),
            ("server", "max_wait_seconds", "3601", "0 to 3600"),
            ("server", "keep_alive_seconds", "0", "1 to 3600"),
            ("server", "drain_seconds", "86401", "0 to 86400"),
            ("server", "header_timeout_seconds", "0", "1 to 3600"),
            ("server", "body_timeout_seconds", "0", "1 to 3600"),
            ("server", "idle_timeout_seconds", "0", "1 to 86400"),
            ("server", "write_timeout_seconds", "3601", "1 to 3600"),
            ("server", "max_connections", "0", "1 to 1000000"),
            ("server", "max_event_streams", "0", "1 to 1000000"),
            ("device", "threads", "1025", "0 to 1024"),
            ("device", "vae_memory_mib", "16777217", "0 to 16777216"),
            ("device", "prompt_cache_mib", "16777217", "0 to 16777216"),
            ("device", "prompt_kv_cache_mib", "16777217", "0 to 16777216"),
            ("device", "model_memory_mib", "16777217", "0 to 16777216"),
            ("device", "model_retry_seconds", "86401", "0 to 86400"),
            ("dispatch", "lease_seconds", "0", "1 to 3600"),
            ("dispatch", "max_attempts", "0", "1 to 1000"),
            ("dispatch", "max_queued_jobs", "0", "1 to 1000000"),
            ("dispatch", "max_canvases", "0", "1 to 1024"),
            ("dispatch", "max_step_rows", "1", "2 to 2048"),
            ("dispatch", "max_step_pixels", "0", "4096 to 1000000000"),
            ("dispatch", "ageing_seconds", "0", "1 to 86400"),
            ("dispatch", "model_stay_seconds", "86401", "0 to 86400"),
            ("retention", "result_seconds", "315360001", "0 to 315360000"),
            ("retention", "removed_seconds", "315360001", "0 to 315360000"),
            ("retention", "idempotency_seconds", "59", "60 to 315360000"),
            ("retention", "check_seconds", "0", "1 to 86400"),
            ("retention", "sweep_seconds", "0", "1 to 315360000"),
        ] {
            let problem = load(&format!("[{section}]\n{key} = {bad}\n")).unwrap_err();
            assert_eq!(problem, format!("{section}.{key}: must be from {range}, got {bad}"));
        }
    }

    #[test]
    fn the_ends_of_a_range_belong_to_it() {
        let lowest = "[server]\nmax_body_bytes = 1024\nmax_wait_seconds = 0\ndrain_seconds = 0\n[dispatch]\nmax_step_rows = 2\n";
        let highest = "[server]\nmax_wait_seconds = 3600\ndrain_seconds = 86400\n[dispatch]\nmax_queued_jobs = 1000000\n";
        for text in [lowest, highest] {
            load(text).unwrap();
        }
    }

    #[test]
    fn fp8_weights_are_made_where_a_model_asks_for_them_alone() {
        let models = "[[models]]\nname = \"a\"\npath = \"a\"\n[[models]]\nname = \"b\"\npath = \"b\"\nfp8_linears = true\n";
        let asked: Vec<bool> = load(models).unwrap().models.iter().map(|model| model.fp8_linears).collect();
        assert_eq!(asked, [false, true]);
        let problem = load("[[models]]\nname = \"a\"\npath = \"a\"\nfp8_linears = 8\n").unwrap_err();
        assert!(problem.contains("expected a boolean"), "{problem}");
    }

    #[test]
    fn a_model_that_asks_for_too_much_is_named_by_its_place() {
        let first = "[[models]]\nname = \"a\"\npath = \"a\"\n";
        for (second, problem) in [
            ("name = \"b\"\nmax_size = 4096", "models[1].max_size: must be from 64 to 2048, got 4096"),
            ("name = \"b\"\nmax_size = 10", "models[1].max_size: must be from 64 to 2048, got 10"),
            ("name = \"b\"\nnum_inference_steps = 0", "models[1].num_inference_steps: must be from 1 to 150, got 0"),
            ("name = \"b\"\nguidance_scale = -3", "models[1].guidance_scale: must be from 0 to 50, got -3"),
            ("name = \"b\"\nguidance_scale = 500", "models[1].guidance_scale: must be from 0 to 50, got 500"),
            ("name = \"b\"\nguidance_scale = nan", "models[1].guidance_scale: must be from 0 to 50, got NaN"),
            ("name = \"a\"", "models[1].name: must be different from all others, got \"a\" again"),
            ("name = \"\"", "models[1].name: must not be empty"),
        ] {
            assert_eq!(load(&format!("{first}[[models]]\npath = \"b\"\n{second}\n")).unwrap_err(), problem);
        }
        assert_eq!(load("models = []").unwrap_err(), "models: at least one model is needed");
    }
}
