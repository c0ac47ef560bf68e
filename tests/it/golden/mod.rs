//! Numbers from diffusers 0.42.1 and transformers 5.23.0, made by `tests/golden/make.py`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

mod arithmetic;
mod folders;
mod painter;
mod paintings;
mod parity;
mod prompts;

pub(crate) use folders::{copy_folder, edit_json};

/// A file of `tests/golden`.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(golden(name)).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}
