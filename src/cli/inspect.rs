//! `easel inspect`: what a file or a folder is.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, answer::answer};
use crate::diffusion::{Inspection, inspect as look};

/// What to look at.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// A .safetensors file, or a folder in diffusers layout
    #[arg(value_name = "FILE_OR_FOLDER")]
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Says what it is.
pub(super) fn inspect(arguments: &InspectArgs) -> Result<(), CliError> {
    let found = look(&arguments.path).map_err(CliError::failed)?;
    match arguments.json {
        true => answer(serde_json::to_string_pretty(&found).map_err(CliError::failed)? + "\n"),
        false => answer(describe(&found)),
    }
}

fn describe(found: &Inspection) -> String {
    let mut text = format!("{}\n", found.description);
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<16} {value}\n"));
    line("layout", found.layout);
    if let Some(prediction_type) = &found.prediction_type {
        line("prediction type", prediction_type);
    }
    if let Some(base) = &found.base {
        line("made on", base);
    }
    if found.has_ema {
        line("averaged UNet", "there, too (ema = true takes it)");
    }
    for part in &found.parts {
        let dtypes: Vec<&str> = part.dtypes.iter().map(String::as_str).collect();
        let (millions, megabytes) = (part.parameters as f64 / 1e6, part.bytes as f64 / 1e6);
        line(&part.name, &format!("{:>10.2} M parameters  {megabytes:>10.2} MB  {}", millions, dtypes.join(", ")));
    }
    if !found.missing.is_empty() {
        line("missing", &found.missing.join(", "));
    }
    line("size", &format!("{:.2} MB", found.bytes as f64 / 1e6));
    text
}
