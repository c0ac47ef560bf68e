//! The server through its public door: HTTP, the terminal, signals. The engine, the database and the files are the real ones.

mod bad_input;
mod batching;
mod cli;
mod disk;
mod durability;
mod events;
mod generate;
mod jobs;
mod metrics;
mod ops;
mod slow;
