//! Estimate, models, kill, crowd and soak runs against a real server on loopback, bounded in count and time: `make estimate`, `models`,
//! `kill`, `crowd`, `soak`.
//!
//! They measure, so they are no tests: `cargo bench --bench load -- estimate [MODEL] | models | kill | crowd | soak MINUTES`. Throughput
//! and latency: benches/serving.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a run may stop at the first surprise")]

mod crowd;
mod estimate;
mod kill;
mod leftovers;
mod models;
mod readers;
mod server;
mod soak;
mod soak_client;
mod vitals;
mod work;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["kill"] => kill::run().await,
        ["crowd"] => crowd::run().await,
        ["estimate"] => estimate::run(None).await,
        ["estimate", model] => estimate::run(Some(model)).await,
        ["models"] => models::run().await,
        ["soak", minutes] => soak::run(minutes.parse().expect("soak takes a whole number of minutes")).await,
        _ => eprintln!("say which run: estimate, models, kill, crowd or soak MINUTES"),
    }
}
