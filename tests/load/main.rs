//! Load and kill runs against a real server on loopback, bounded in count and time: `make load` and `make kill`.
//!
//! They measure, so they are no tests: `cargo bench --bench load -- throughput | kill`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a run may stop at the first surprise")]

mod kill;
mod server;
mod throughput;
mod work;

#[tokio::main]
async fn main() {
    match std::env::args().skip(1).find(|argument| !argument.starts_with("--")).as_deref() {
        Some("throughput") => throughput::run().await,
        Some("kill") => kill::run().await,
        _ => eprintln!("say which run: throughput or kill"),
    }
}
