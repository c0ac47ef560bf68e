//! Logs and metrics. A leaf: every room may call it and it calls none.

use std::{
    any::Any,
    io::{IsTerminal, stderr},
};

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Seconds, from a cheap store call to a long picture.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];
/// Around 1, close by within 15 %.
const RATIOS: [f64; 11] = [0.25, 0.5, 0.7, 0.85, 0.95, 1.05, 1.15, 1.3, 1.5, 2.0, 4.0];
const CANVASES: [f64; 9] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0];

/// Every metric of the server. No label has a value that a client chooses.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Jobs that wait.
    pub queue_depth: IntGauge,
    /// 1 while the queue is paused.
    pub queue_paused: IntGauge,
    /// Seconds from a job's POST to its claim.
    pub queue_wait_seconds: Histogram,
    /// Canvases on the device.
    pub device_canvases: IntGauge,
    /// Canvases that shared a UNet call.
    pub step_canvases: Histogram,
    /// Seconds of a UNet call with its scheduler step and the previews after it.
    pub step_seconds: Histogram,
    /// Seconds that a UNet call is expected to take, by model and rows: in the model's own size, of powers of two.
    pub step_estimate_seconds: GaugeVec,
    /// Seconds that jobs were expected to take when they came, as a part of those that they took.
    pub estimate_ratio: Histogram,
    /// Seconds of a job by stage: queue, encode, denoise, decode, store.
    pub stage_seconds: HistogramVec,
    /// Jobs that ended, by status.
    pub jobs_total: IntCounterVec,
    /// Jobs that were accepted.
    pub jobs_accepted_total: IntCounter,
    /// Jobs that were removed because they were too old.
    pub jobs_expired_total: IntCounter,
    /// What no job owned and was removed: inputs, unfinished files, and folders of jobs, each counted once.
    pub pictures_swept_total: IntCounter,
    /// Previews that were dropped because nobody could take them in time.
    pub previews_dropped_total: IntCounter,
    /// Encodes and decodes of the VAE that overflowed in half precision and were repeated in float32.
    pub vae_float32_retries_total: IntCounter,
    /// Chunks of prompts by whether what the text encoders make of them was known: hit, miss.
    pub prompt_chunks_total: IntCounterVec,
    /// Models that were loaded, by model.
    pub model_loads_total: IntCounterVec,
    /// Models that could not be loaded, by model.
    pub model_load_failures_total: IntCounterVec,
    /// Models that left the device for another one, by model.
    pub model_evictions_total: IntCounterVec,
    /// Loads for which one or more models had to leave.
    pub model_switches_total: IntCounter,
    /// Seconds that a load took, by model.
    pub model_load_seconds: HistogramVec,
    /// Bytes of the weights on the device or on their way to it, by model.
    pub model_resident_bytes: IntGaugeVec,
    /// Open TCP connections of clients.
    pub connections: IntGauge,
    /// Open event streams.
    pub event_streams: IntGauge,
    /// HTTP responses by method, route pattern and status.
    pub http_requests_total: IntCounterVec,
    /// Seconds to the response's head, by method and route pattern.
    pub http_request_seconds: HistogramVec,
}

impl Metrics {
    /// Registers every metric in a registry of its own.
    ///
    /// # Errors
    /// When two metrics have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            queue_depth: IntGauge::new("easel_queue_depth", "Jobs that wait")?,
            queue_paused: IntGauge::new("easel_queue_paused", "1 while the queue is paused")?,
            queue_wait_seconds: histogram("easel_queue_wait_seconds", "Seconds from a job's POST to its claim", &SECONDS)?,
            device_canvases: IntGauge::new("easel_device_canvases", "Canvases on the device")?,
            step_canvases: histogram("easel_step_canvases", "Canvases that shared a UNet call", &CANVASES)?,
            step_seconds: histogram(
                "easel_step_seconds",
                "Seconds of a UNet call with its scheduler step and the previews after it",
                &SECONDS,
            )?,
            step_estimate_seconds: GaugeVec::new(
                Opts::new("easel_step_estimate_seconds", "Seconds that a UNet call is expected to take in the model's own size"),
                &["model", "rows"],
            )?,
            estimate_ratio: histogram(
                "easel_estimate_ratio",
                "Seconds that a job was expected to take by those that it took",
                &RATIOS,
            )?,
            stage_seconds: histograms("easel_stage_seconds", "Seconds of a job by stage", &["stage"])?,
            jobs_total: counters("easel_jobs_total", "Jobs that ended, by status", &["status"])?,
            jobs_accepted_total: IntCounter::new("easel_jobs_accepted_total", "Jobs that were accepted")?,
            jobs_expired_total: IntCounter::new("easel_jobs_expired_total", "Jobs removed because they were too old")?,
            pictures_swept_total: IntCounter::new(
                "easel_pictures_swept_total",
                "Inputs, unfinished files and jobs' folders removed because no job owned them",
            )?,
            previews_dropped_total: IntCounter::new("easel_previews_dropped_total", "Previews dropped, never waited for")?,
            vae_float32_retries_total: IntCounter::new(
                "easel_vae_float32_retries_total",
                "Encodes and decodes of the VAE that overflowed in half precision and were repeated in float32",
            )?,
            prompt_chunks_total: counters(
                "easel_prompt_chunks_total",
                "Chunks of prompts, by whether they were known",
                &["cache"],
            )?,
            model_loads_total: counters("easel_model_loads_total", "Models that were loaded", &["model"])?,
            model_load_failures_total: counters("easel_model_load_failures_total", "Models that could not be loaded", &["model"])?,
            model_evictions_total: counters("easel_model_evictions_total", "Models that left the device for another", &["model"])?,
            model_switches_total: IntCounter::new("easel_model_switches_total", "Loads for which other models had to leave")?,
            model_load_seconds: histograms("easel_model_load_seconds", "Seconds that a load took", &["model"])?,
            model_resident_bytes: IntGaugeVec::new(
                Opts::new("easel_model_resident_bytes", "Bytes of weights on the device or on their way to it"),
                &["model"],
            )?,
            connections: IntGauge::new("easel_connections", "Open TCP connections of clients")?,
            event_streams: IntGauge::new("easel_event_streams", "Open event streams")?,
            http_requests_total: counters("easel_http_requests_total", "HTTP responses", &["method", "route", "status"])?,
            http_request_seconds: histograms("easel_http_request_seconds", "Seconds to the response's head", &["method", "route"])?,
            registry,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let registry = &self.registry;
        registry.register(Box::new(self.queue_depth.clone()))?;
        registry.register(Box::new(self.queue_paused.clone()))?;
        registry.register(Box::new(self.queue_wait_seconds.clone()))?;
        registry.register(Box::new(self.device_canvases.clone()))?;
        registry.register(Box::new(self.step_canvases.clone()))?;
        registry.register(Box::new(self.step_seconds.clone()))?;
        registry.register(Box::new(self.step_estimate_seconds.clone()))?;
        registry.register(Box::new(self.estimate_ratio.clone()))?;
        registry.register(Box::new(self.stage_seconds.clone()))?;
        registry.register(Box::new(self.jobs_total.clone()))?;
        registry.register(Box::new(self.jobs_accepted_total.clone()))?;
        registry.register(Box::new(self.jobs_expired_total.clone()))?;
        registry.register(Box::new(self.pictures_swept_total.clone()))?;
        registry.register(Box::new(self.previews_dropped_total.clone()))?;
        registry.register(Box::new(self.vae_float32_retries_total.clone()))?;
        registry.register(Box::new(self.prompt_chunks_total.clone()))?;
        registry.register(Box::new(self.model_loads_total.clone()))?;
        registry.register(Box::new(self.model_load_failures_total.clone()))?;
        registry.register(Box::new(self.model_evictions_total.clone()))?;
        registry.register(Box::new(self.model_switches_total.clone()))?;
        registry.register(Box::new(self.model_load_seconds.clone()))?;
        registry.register(Box::new(self.model_resident_bytes.clone()))?;
        registry.register(Box::new(self.connections.clone()))?;
        registry.register(Box::new(self.event_streams.clone()))?;
        registry.register(Box::new(self.http_requests_total.clone()))?;
        registry.register(Box::new(self.http_request_seconds.clone()))
    }

    /// Every metric in the Prometheus text format.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
}

fn histograms(name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStyle {
    /// Pretty when standard error is a terminal, else JSON.
    Auto,
    /// Coloured lines for people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// One of the directives cannot be understood.
    #[error(
        "{directive:?} is no log level (off, error, warn, info, debug, trace) and no directive such as \"easel::dispatch=debug\""
    )]
    Directive {
        /// The directive, as it was given.
        directive: String,
    },
    /// Something else writes the process's log already.
    #[error("logging has begun already: {0}")]
    AlreadyBegun(String),
}

/// Begins to write the process's log to standard error.
///
/// `directives` is a level such as `info`, or several directives such as `info,easel::dispatch=debug`.
///
/// # Errors
/// When a directive cannot be understood, or logging has begun already.
pub fn init_logging(style: LogStyle, directives: &str) -> Result<(), LoggingError> {
    let builder = tracing_subscriber::fmt().with_env_filter(parse_filter(directives)?).with_writer(stderr);
    let on_terminal = stderr().is_terminal();
    let begun = match style {
        LogStyle::Pretty => builder.with_ansi(on_terminal).try_init(),
        LogStyle::Auto if on_terminal => builder.try_init(),
        LogStyle::Auto | LogStyle::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    begun.map_err(|error| LoggingError::AlreadyBegun(error.to_string()))
}

fn parse_filter(text: &str) -> Result<EnvFilter, LoggingError> {
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        // The filter takes a lone word that is no level for a target, so that a slip of the pen would turn the log off.
        let is_level = !directive.is_empty() && directive.parse::<LevelFilter>().is_ok();
        let is_rule = directive.contains(['=', '[']) && EnvFilter::builder().parse(directive).is_ok();
        if !is_level && !is_rule {
            return Err(LoggingError::Directive { directive: (*directive).to_owned() });
        }
    }
    let parsed = EnvFilter::builder().parse(directives.join(","));
    parsed.map_err(|_| LoggingError::Directive { directive: text.to_owned() })
}

/// What a caught panic said.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood() {
        for good in ["info", "WARN", "off", "info,easel::dispatch=debug", "warn, easel=trace", "easel[request]=debug"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_misspelt_level_is_an_error_that_names_it() {
        for (bad, named) in [("inof", "inof"), ("info,easel::dispatch=loud", "easel::dispatch=loud"), ("", "")] {
            let problem = parse_filter(bad).unwrap_err().to_string();
            assert!(problem.contains(&format!("{named:?}")), "{problem}");
        }
    }
}
