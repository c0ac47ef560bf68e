//! `easel bench --lines`: cases on standard input, times on standard output, so that another program can have them in turns with its own.

use std::io::{BufRead, BufReader, Read, stdin};

use serde_json::{Value, json};

use super::{
    super::{CliError, answer::answer},
    settings_of,
};
use crate::diffusion::{Bench, BenchCase, EngineSettings, ModelFolder};

/// Bytes of a line; a case has some 80.
const LONGEST: u64 = 4096;

/// Loads the model, says so, and answers each line with one.
pub(super) fn serve(settings: &EngineSettings, folders: Vec<ModelFolder>) -> Result<(), CliError> {
    let [folder] = <[ModelFolder; 1]>::try_from(folders)
        .map_err(|_| CliError::Usage("--lines times one model: name it with --model".to_owned()))?;
    let model = folder.name.clone();
    let mut bench = Bench::load(&settings_of(settings, folder)).map_err(CliError::failed)?;
    let device = bench.device();
    say(&json!({"ready": model, "device": device.name, "dtype": device.dtype, "threads": device.threads}))?;
    let mut input = BufReader::new(stdin());
    loop {
        let mut line = String::new();
        if input.by_ref().take(LONGEST).read_line(&mut line).map_err(CliError::failed)? == 0 {
            return Ok(());
        }
        say(&time(&mut bench, &line))?;
    }
}

/// What a wrong line is answered leaves the next ones to be asked.
fn time(bench: &mut Bench, line: &str) -> Value {
    let case = serde_json::from_str::<BenchCase>(line).map_err(|error| error.to_string());
    match case.and_then(|case| bench.time(&case).map_err(|error| error.to_string())) {
        Ok(seconds) => match bench.peak_gpu_memory() {
            Some(bytes) => json!({"seconds": seconds, "peak_gpu_memory_bytes": bytes}),
            None => json!({"seconds": seconds}),
        },
        Err(error) => json!({"error": error}),
    }
}

fn say(line: &Value) -> Result<(), CliError> {
    answer(format_args!("{line}\n"))
}
