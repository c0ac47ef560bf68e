//! The server through its public door: HTTP, the terminal, signals. The engine, the database and the files are the real ones.

mod auth;
mod bad_input;
mod batching;
mod cli;
mod contract;
mod disk;
mod docs;
mod durability;
mod events;
mod formats;
mod generate;
mod health;
mod idempotency;
mod jobs;
mod key;
mod limits;
mod list;
mod metrics;
mod negotiation;
mod ops;
mod queue;
mod ranges;
mod removal;
mod retry;
mod slow;
mod thumbnails;
