//! Paints a request in this process: as many pictures at a time as the settings let share a UNet call.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::{CliError, answer::answer, output::Output};
use crate::{
    app::step_limits,
    config::DispatchConfig,
    diffusion::{Canvas, EngineSettings, StableDiffusion},
    dispatch::ports::{CanvasState, Engine, IntoRgb, PaintOrder},
    domain::{GenerationRequest, Submission, infotext},
};

/// Loads the model, paints every picture and writes its file.
pub(super) fn paint(
    settings: &EngineSettings,
    limits: &DispatchConfig,
    submission: Submission,
    output: &Output,
) -> Result<(), CliError> {
    let spinner = ProgressBar::new_spinner().with_message(format!("loading {}", submission.request.model));
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    let engine = StableDiffusion::load(settings).map_err(CliError::failed)?;
    spinner.finish_and_clear();
    let mut warnings = submission.warnings.clone();
    let order = PaintOrder::of(submission).map_err(CliError::failed)?;
    let mut easel = Easel { engine, bar: progress_bar(&order.request)?, output };
    for images in groups(&order.request, limits) {
        for warning in easel.paint_group(&order, images)? {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    easel.bar.finish_and_clear();
    for warning in warnings {
        eprintln!("easel: note: {warning}");
    }
    Ok(())
}

/// The engine with what shows and takes its pictures.
struct Easel<'a> {
    engine: StableDiffusion,
    bar: ProgressBar,
    output: &'a Output,
}

impl Easel<'_> {
    /// Paints some of the pictures together and answers what the user should know about the request.
    fn paint_group(&mut self, order: &PaintOrder, images: Range<u32>) -> Result<Vec<String>, CliError> {
        let begun = self.engine.begin(order, images.clone()).map_err(CliError::failed)?;
        let mut canvases = begun.canvases;
        if let Some(canvas) = canvases.first() {
            self.bar.set_length(u64::from(canvas.progress().1) * u64::from(order.request.num_images));
        }
        let start = Instant::now();
        self.denoise(&mut canvases)?;
        let finished: Vec<&Canvas> = canvases.iter().collect();
        let frames = self.engine.finish(&finished).map_err(CliError::failed)?;
        for (index, frame) in images.zip(frames) {
            let file = self.write(&order.request, index, frame)?;
            let seconds = start.elapsed().as_secs_f64();
            self.bar.suspend(|| answer(summary(&order.request, index, &file, seconds) + "\n"))?;
        }
        Ok(begun.warnings)
    }

    /// Every canvas of a request has the same steps, so that all are done at once.
    fn denoise(&mut self, canvases: &mut [Canvas]) -> Result<(), CliError> {
        while canvases.iter().any(|canvas| !canvas.is_done()) {
            let mut moving: Vec<&mut Canvas> = canvases.iter_mut().filter(|canvas| !canvas.is_done()).collect();
            let done = |canvases: &[&mut Canvas]| canvases.iter().map(|canvas| u64::from(canvas.progress().0)).sum::<u64>();
            let before = done(&moving);
            for stepped in self.engine.step(&mut moving).map_err(CliError::failed)? {
                stepped.map_err(CliError::failed)?;
            }
            // A scheduler of second order makes two calls a step.
            self.bar.inc(done(&moving) - before);
        }
        Ok(())
    }

    fn write(&self, request: &GenerationRequest, index: u32, frame: impl IntoRgb) -> Result<PathBuf, CliError> {
        let rgb = frame.into_rgb().map_err(CliError::failed)?;
        let bytes = request.output.encode(&rgb, Some(&infotext(request, index))).map_err(CliError::failed)?;
        let file = self.output.file(index, request.num_images);
        fs::write(&file, bytes).map_err(|error| CliError::failed(format!("{}: {error}", file.display())))?;
        Ok(file)
    }
}

/// The pictures that are painted together, one group after the other.
fn groups(request: &GenerationRequest, limits: &DispatchConfig) -> Vec<Range<u32>> {
    let size = step_limits(limits).pictures_of(request).min(limits.max_canvases);
    let count = request.num_images;
    let starts = (0..count).step_by(size);
    starts.map(|start| start..count.min(start + u32::try_from(size).unwrap_or(count))).collect()
}

/// Counts the steps of all pictures.
fn progress_bar(request: &GenerationRequest) -> Result<ProgressBar, CliError> {
    let pace = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.2} it/s", state.per_sec());
    };
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} steps  {pace}  ETA {eta}").map_err(CliError::failed)?;
    let steps = u64::from(request.effective_steps()) * u64::from(request.num_images);
    Ok(ProgressBar::new(steps).with_style(style.with_key("pace", pace)))
}

fn summary(request: &GenerationRequest, index: u32, file: &Path, seconds: f64) -> String {
    let (width, height, seed) = (request.width, request.height, request.image_seed(index));
    format!("{}  {width} × {height}  seed {seed}  {seconds:.1} s", file.display())
}
