//! The real server under the load of mixed clients, in a process of its own on loopback: `make load`.
//!
//! - Closed loop: each client sends its next job when the last one is done. Step batching against one canvas at a time, in turns.
//! - Open loop: jobs arrive by chance (Poisson), whether the server keeps up or not, at 0.7 of what the closed loop reached. Step batching
//!   against batching whole requests, with the same arrivals.
//! - What a job costs outside the engine, and what the server adds to a picture of the bare loop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a run may stop at the first surprise")]

mod bare;
mod classes;
mod closed;
mod open;
mod overhead;
mod painting;
#[path = "../../tests/load/server.rs"]
#[allow(dead_code, reason = "the load runs use the rest")]
mod server;
mod summary;
#[path = "../../tests/load/work.rs"]
#[allow(dead_code, reason = "the load runs use the rest")]
mod work;

use std::{collections::BTreeMap, path::PathBuf};

use clap::Parser;
use serde_json::{Value, json};

use crate::classes::Mix;

/// Measure a server under load. Settings of the server come from EASEL__… variables.
#[derive(Debug, Parser)]
struct Options {
    /// What is measured: closed, open, overhead, bare; all if nothing is said
    runs: Vec<String>,
    /// Clients of the closed loop
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// Jobs of the closed loop, and of the open one
    #[arg(long, default_value_t = 80)]
    jobs: usize,
    /// How often the two sides of the closed loop take turns
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Jobs a second of the open loop [default: 0.7 of what the closed loop reached]
    #[arg(long)]
    rate: Option<f64>,
    /// A model's folder [default: the settings' own, the demo model]
    #[arg(long)]
    model: Option<PathBuf>,
    /// Width and height of most pictures
    #[arg(long, default_value_t = 128)]
    size: u32,
    /// Steps of jobs with few, with the usual number, and with many
    #[arg(long, value_delimiter = ',', default_values_t = [12, 20, 40])]
    steps: Vec<u32>,
    /// A job is in time when it takes at most so many times as long as alone
    #[arg(long, default_value_t = 5.0)]
    slo: f64,
    /// Write everything to a JSON file, too
    #[arg(long)]
    json: Option<PathBuf>,
    /// What the JSON file calls this version of the program
    #[arg(long)]
    commit: Option<String>,
    /// What cargo gives every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, run: &str) -> bool {
        self.runs.is_empty() || self.runs.iter().any(|wanted| wanted == run)
    }
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let unknown = options.runs.iter().find(|run| !["closed", "open", "overhead", "bare"].contains(&run.as_str()));
    assert_eq!(unknown, None, "say which run: closed, open, overhead or bare");
    let mix = Mix::new(options.size, &options.steps);
    let scratch = tempfile::tempdir().unwrap();
    let settings = model_settings(&options, scratch.path());
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": options.commit,
        "date": jiff::Timestamp::now().to_string(),
        "command": std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        "cpu": cpu(),
    });
    let lone =
        if options.wants("closed") || options.wants("open") { painting::lone(&settings, &mix).await } else { BTreeMap::new() };
    report["seconds_alone"] = json!(lone);
    if options.wants("closed") {
        report["closed"] = closed::run(&options, &settings, (&mix, &lone)).await;
    }
    if options.wants("open") {
        let reached = report["closed"]["step_batching"][0]["jobs_per_second"].as_f64();
        let rate = options
            .rate
            .or(reached.map(|reached| 0.7 * reached))
            .expect("the open loop needs --rate, or the closed loop before it");
        report["open"] = open::run(&options, &settings, (&mix, &lone), rate).await;
    }
    if options.wants("overhead") {
        report["overhead"] = overhead::run(&settings).await;
    }
    if options.wants("bare") {
        report["bare"] = bare::run(&options, &settings).await;
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
    }
}

/// The settings that name the model.
fn model_settings(options: &Options, scratch: &std::path::Path) -> Vec<(&'static str, String)> {
    let Some(model) = &options.model else { return Vec::new() };
    let file = scratch.join("model.toml");
    let path = model.canonicalize().unwrap();
    std::fs::write(&file, format!("[[models]]\nname = \"model\"\npath = \"{}\"\n", path.display())).unwrap();
    vec![("EASEL_CONFIG", file.display().to_string())]
}

fn cpu() -> Value {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({"name": name.map(|(_, name)| name), "cores": std::thread::available_parallelism().unwrap().get()})
}
