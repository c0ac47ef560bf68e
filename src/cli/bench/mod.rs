//! `easel bench`: how fast this machine is at each part of a picture.

mod cases;
mod lines;
mod machine;
mod report;

use std::{fs, path::PathBuf};

use clap::{Args, ValueEnum};

use self::{
    cases::{Chosen, cases},
    machine::Machine,
    report::{Ceiling, Device, ModelReport, Report, Timed},
};
use super::{CliError, answer::answer};
use crate::{
    app,
    config::Config,
    diffusion::{Bench, BenchCase, BenchPart, EngineSettings, ModelFolder, Precision, RandomModel, ResidencySettings},
};

/// Sides of the matrices whose product is the ceiling: enough work that nothing but the multiplying counts.
const MATMUL_ON_CPU: u32 = 4096;
const MATMUL_ON_GPU: u32 = 8192;
/// Runs of a case; those on a GPU take milliseconds.
const REPEATS_ON_CPU: u32 = 2;
const REPEATS_ON_GPU: u32 = 10;

/// What to time. Models of the published sizes are made on the spot with random weights, so that nothing needs to be fetched.
#[derive(Debug, Args)]
#[allow(clippy::missing_docs_in_private_items, reason = "the docstrings are the help's text")]
pub(super) struct BenchArgs {
    /// sd15, sd21, sdxl or tiny (random weights), a model of the settings, or a folder or file; may be repeated [default: sd15, sd21, sdxl]
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// A part of the work; may be repeated [default: all]
    #[arg(long = "part", value_name = "PART")]
    parts: Vec<PartName>,
    /// Rows of the UNet's steps; a picture with guidance has two [default: 1,2,4,8,16; on a CPU fewer]
    #[arg(long, value_name = "ROWS", value_delimiter = ',')]
    rows: Vec<u32>,
    /// Width and height in pixels [default: the model's own; on a CPU at most 512]
    #[arg(long, value_name = "PIXELS")]
    size: Option<u32>,
    /// Steps of whole pictures [default: 30; on a CPU 2]
    #[arg(long)]
    steps: Option<u32>,
    /// Whole pictures that move together [default: 1,8; on a CPU 1,2 for the first model and 1 for the others]
    #[arg(long, value_name = "PICTURES", value_delimiter = ',')]
    canvases: Vec<u32>,
    /// How often each case is timed, after a first run that is not [default: 10; on a CPU 2]
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: Option<u32>,
    /// auto, cpu or cuda:N [default: as the settings say]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// [default: as the settings say]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<DtypeName>,
    /// Make the products of the UNet's transformers of 8-bit floats
    #[arg(long)]
    fp8_linears: bool,
    /// CPU threads of one operation [default: as the settings say]
    #[arg(long)]
    threads: Option<usize>,
    /// Side of the matrices whose product is the machine's ceiling [default: 8192; on a CPU 4096]
    #[arg(long, value_name = "SIDE", value_parser = clap::value_parser!(u32).range(1..=32768))]
    matmul: Option<u32>,
    /// Say, too, which share of each case attention, convolutions and linear layers take
    #[arg(long)]
    profile: bool,
    /// Write everything to a JSON file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the JSON file calls this version of the program
    #[arg(long, value_name = "TEXT")]
    commit: Option<String>,
    /// Time the cases that come on standard input, one JSON object a line: {"part": "unet", "rows": 2, "size": 512, "steps": 1}
    #[arg(long, conflicts_with_all = ["parts", "rows", "size", "steps", "canvases", "repeat", "matmul", "profile", "json", "commit"])]
    lines: bool,
}

/// A part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PartName {
    /// A prompt that is new
    TextEncoder,
    /// One step
    Unet,
    /// From latents to a picture
    VaeDecode,
    /// From latents to a preview
    Preview,
    /// From prompts to pictures
    Whole,
}

impl From<PartName> for BenchPart {
    fn from(name: PartName) -> Self {
        match name {
            PartName::TextEncoder => Self::TextEncoder,
            PartName::Unet => Self::Unet,
            PartName::VaeDecode => Self::VaeDecode,
            PartName::Preview => Self::Preview,
            PartName::Whole => Self::Whole,
        }
    }
}

/// A dtype as the settings name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum DtypeName {
    Auto,
    Float32,
    Bfloat16,
    Float16,
}

impl From<DtypeName> for Precision {
    fn from(name: DtypeName) -> Self {
        match name {
            DtypeName::Auto => Self::Auto,
            DtypeName::Float32 => Self::Float32,
            DtypeName::Bfloat16 => Self::Bfloat16,
            DtypeName::Float16 => Self::Float16,
        }
    }
}

/// Times what the arguments name, and says it as it comes.
pub(super) fn bench(config: &Config, arguments: &BenchArgs) -> Result<(), CliError> {
    let mut settings = app::engine_settings(config);
    settings.residency = ResidencySettings::default();
    settings.device = arguments.device.clone().unwrap_or(settings.device);
    settings.dtype = arguments.dtype.map_or(settings.dtype, Precision::from);
    settings.threads = arguments.threads.unwrap_or(settings.threads);
    let mut folders = folders(&arguments.models, &settings.models);
    folders.iter_mut().for_each(|folder| folder.fp8_linears |= arguments.fp8_linears);
    if arguments.lines {
        return lines::serve(&settings, folders);
    }
    let machine = Machine::here();
    answer(machine.line())?;
    let mut report = Report::new(machine, arguments.commit.clone());
    for (place, folder) in folders.into_iter().enumerate() {
        time_model(arguments, settings_of(&settings, folder), place == 0, &mut report)?;
    }
    answer(report.note_memory())?;
    match &arguments.json {
        Some(file) => write(file, &report),
        None => Ok(()),
    }
}

/// The models that are named: of random weights, of the settings, or where they lie.
fn folders(names: &[String], settings: &[ModelFolder]) -> Vec<ModelFolder> {
    let folder = |name: &String| {
        let random = RandomModel::ALL.into_iter().find(|model| model.name() == name);
        let known = || settings.iter().find(|folder| folder.name == *name).cloned();
        random.map(ModelFolder::random).or_else(known).unwrap_or_else(|| ModelFolder::new(name, name))
    };
    match names {
        [] => [RandomModel::Sd15, RandomModel::Sd21, RandomModel::Sdxl].map(ModelFolder::random).to_vec(),
        names => names.iter().map(folder).collect(),
    }
}

/// The engine of one model. It knows no earlier prompts, so that a text encoder is timed by both of its rows, as its peers are.
fn settings_of(settings: &EngineSettings, folder: ModelFolder) -> EngineSettings {
    EngineSettings { models: vec![folder], prompt_cache: 0, ..settings.clone() }
}

fn time_model(arguments: &BenchArgs, settings: EngineSettings, is_first: bool, report: &mut Report) -> Result<(), CliError> {
    let model = settings.models.first().map(|folder| folder.name.clone()).unwrap_or_default();
    let start = std::time::Instant::now();
    let mut bench = Bench::load(&settings).map_err(CliError::failed)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let device = bench.device();
    let is_gpu = device.name != "cpu";
    let known = report.ceiling(&device.dtype);
    let ceiling = known.map_or_else(|| measure_ceiling(arguments.matmul, &bench, is_gpu), Ok)?;
    let device = Device::from(device);
    answer(format_args!("\n{model}, loaded in {load_seconds:.1} s; {}", device.line(ceiling)))?;
    let chosen = Chosen {
        parts: arguments.parts.iter().map(|part| (*part).into()).collect(),
        rows: arguments.rows.clone(),
        size: arguments.size,
        steps: arguments.steps,
        canvases: arguments.canvases.clone(),
    };
    let repeats = arguments.repeat.unwrap_or(if is_gpu { REPEATS_ON_GPU } else { REPEATS_ON_CPU });
    let mut results = Vec::new();
    for case in cases(&chosen, bench.default_size(), is_gpu, is_first) {
        let timed = time_case(&mut bench, case, repeats, arguments.profile)?;
        let timed = timed.against(ceiling);
        answer(timed.line())?;
        results.push(timed);
    }
    report.models.push(ModelReport {
        model,
        load_seconds,
        device,
        matmul: ceiling,
        results,
        peak_gpu_memory_bytes: bench.peak_gpu_memory(),
    });
    Ok(())
}

fn measure_ceiling(side: Option<u32>, bench: &Bench, is_gpu: bool) -> Result<Ceiling, CliError> {
    let side = side.unwrap_or(if is_gpu { MATMUL_ON_GPU } else { MATMUL_ON_CPU });
    Ok(Ceiling::new(side, bench.matmul_ceiling(side).map_err(CliError::failed)?))
}

/// The first run counts, and its time is not taken: what is done once is done in it. A GPU does some things in its second, too.
fn time_case(bench: &mut Bench, case: BenchCase, repeats: u32, profile: bool) -> Result<Timed, CliError> {
    let counted = bench.count(&case).map_err(CliError::failed)?;
    let is_gpu = bench.device().name != "cpu";
    for _ in 0..if is_gpu { 3 } else { 0 } {
        bench.time(&case).map_err(CliError::failed)?;
    }
    let seconds = (0..repeats).map(|_| bench.time(&case)).collect::<Result<Vec<_>, _>>().map_err(CliError::failed)?;
    let profile = profile.then(|| bench.profile(&case)).transpose().map_err(CliError::failed)?;
    Ok(Timed::new(case, seconds, counted.readings, profile))
}

fn write(file: &std::path::Path, report: &Report) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(report).map_err(CliError::failed)? + "\n";
    fs::write(file, text).map_err(|error| CliError::failed(format!("{}: {error}", file.display())))
}
