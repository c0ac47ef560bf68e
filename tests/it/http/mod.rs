//! The server through its public door: HTTP, the terminal, signals. The engine, the database and the files are the real ones.

mod auth;
mod bad_input;
mod batching;
mod cli;
mod durability;
mod events;
mod generate;
mod jobs;
mod key;
mod limits;
mod metrics;
mod ops;
