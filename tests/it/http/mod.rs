//! The server through its public door: HTTP, the terminal, signals. The engine, the database and the files are the real ones.

mod bad_input;
mod batching;
mod cli;
mod disk;
mod durability;
mod events;
mod generate;
mod idempotency;
mod jobs;
mod list;
mod metrics;
mod ops;
mod queue;
mod removal;
mod retry;
mod slow;
