//! The terminal: `easel serve | generate | bench | health | key | migrate | models | pull | inspect | convert`.

mod answer;
mod bench;
mod convert;
mod error;
mod generate;
mod health;
mod inspect;
mod key;
mod migrate;
mod models;
mod output;
mod paint;
mod pull;
mod request;
mod serve;

use std::{env, ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

pub use error::CliError;

use crate::{
    config::Config,
    telemetry::{LogStyle, init_logging},
};

/// A Stable Diffusion server: many pictures in one UNet call, and never a lost job.
#[derive(Debug, Parser)]
#[command(name = "easel", version, propagate_version = true)]
struct Cli {
    /// Settings laid over the defaults; EASEL_CONFIG=FILE does the same [default: config/default.toml, built in]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve over HTTP until Ctrl-C or SIGTERM, which let running pictures finish
    Serve,
    /// Paint here, without a server
    #[command(visible_alias = "gen")]
    Generate(Box<generate::GenerateArgs>),
    /// Time this machine at each part of a picture: the step, the decode, whole pictures; against what a matrix product reaches
    Bench(Box<bench::BenchArgs>),
    /// Ask the server that runs here with these settings whether it can take jobs; ends with 0 when it can
    Health,
    /// Make a key for a client, and what the settings say about it
    Key(key::KeyArgs),
    /// Bring the job store's tables up to date; `serve` does this, too
    Migrate,
    /// List the models that are served
    Models,
    /// Fetch a model from the Hugging Face hub into its cache on this machine (HF_HOME), and say what the settings need
    Pull(pull::PullArgs),
    /// Say what a checkpoint is: its family, parts, dtypes and size, or which kind of adapter
    Inspect(inspect::InspectArgs),
    /// Turn a single file into a folder in diffusers layout, or a folder into a single file
    Convert(convert::ConvertArgs),
}

/// Runs the command that `arguments` name (the first is the program's own name) and answers how the process should end:
/// 0 when all is well, 1 after a failure, 2 when the command line or the settings are wrong.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too, and end with 0. There is nobody left to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("easel: {error}");
            error.exit_code()
        }
    }
}

fn execute(cli: Cli) -> Result<(), CliError> {
    let file = cli.config.or_else(config_variable);
    let config = || Config::load(file.as_deref()).map_err(|error| CliError::Usage(format!("settings: {error}")));
    // What a command prints is its answer; the log adds what the user should know about it.
    let warned = || config().and_then(|config| init_logging(LogStyle::Pretty, "warn").map(|()| config).map_err(CliError::failed));
    match cli.command {
        Command::Serve => serve::serve(config()?),
        Command::Generate(arguments) => generate::generate(&warned()?, &arguments),
        Command::Bench(arguments) => bench::bench(&warned()?, &arguments),
        Command::Health => health::health(&warned()?),
        // Keys are made before there are settings, so wrong ones are no hindrance.
        Command::Key(arguments) => key::key(&arguments),
        Command::Migrate => migrate::migrate(&warned()?),
        Command::Models => models::models(&warned()?),
        // Settings that name the model are written after this.
        Command::Pull(arguments) => pull::pull(&arguments),
        // Files are what they are, whatever the settings.
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Convert(arguments) => convert::convert(&arguments),
    }
}

fn config_variable() -> Option<PathBuf> {
    env::var_os("EASEL_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from)
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::failed)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_config_file_may_stand_before_or_after_the_command() {
        for line in [["easel", "--config", "a.toml", "serve"], ["easel", "serve", "--config", "a.toml"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.config, Some(PathBuf::from("a.toml")));
        }
    }
}
