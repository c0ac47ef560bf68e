//! `easel convert`: a single file from a folder, or a folder from a single file.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, answer::answer};
use crate::diffusion::{Conversion, FileSettings, Precision, convert as write};

/// What to convert.
#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// A model: a .safetensors file in the original layout, or a folder in diffusers layout
    source: PathBuf,
    /// What to write: a file of the original layout when it ends in .safetensors, else a folder; never over something that is there
    target: PathBuf,
    /// The dtype of the weights [default: each as it is]
    #[arg(long, value_enum)]
    dtype: Option<WeightDtype>,
    /// Take the VAE from this file or folder
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Take the text encoder from this file or folder
    #[arg(long, value_name = "PATH")]
    text_encoder: Option<PathBuf>,
    /// Take the second text encoder from this file or folder
    #[arg(long, value_name = "PATH")]
    text_encoder_2: Option<PathBuf>,
    /// Take the averaged UNet of a file that has both
    #[arg(long)]
    ema: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WeightDtype {
    Float32,
    Float16,
    Bfloat16,
}

/// Converts, with a progress bar on a terminal.
pub(super) fn convert(arguments: &ConvertArgs) -> Result<(), CliError> {
    let how = Conversion {
        dtype: match arguments.dtype {
            None => Precision::Auto,
            Some(WeightDtype::Float32) => Precision::Float32,
            Some(WeightDtype::Float16) => Precision::Float16,
            Some(WeightDtype::Bfloat16) => Precision::Bfloat16,
        },
        files: FileSettings {
            vae: arguments.vae.clone(),
            text_encoder: arguments.text_encoder.clone(),
            text_encoder_2: arguments.text_encoder_2.clone(),
            prediction_type: None,
            ema: arguments.ema,
        },
    };
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let written = write(&arguments.source, &arguments.target, &how, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    written.map_err(CliError::failed)?;
    answer(format_args!("{}\n", arguments.target.display()))
}
