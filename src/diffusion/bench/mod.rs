//! Times the parts of a model through the engine's own door, and counts what they compute: for `easel bench`.

mod case;

use std::{mem, time::Instant};

use serde_json::json;
use tch::{Device, Tensor};

pub use self::case::{BenchCase, BenchPart};
use super::{
    canvas::Canvas,
    device::Placement,
    error::{LoadError, engine_error},
    folder::describe_models,
    meter::{Look, Readings, metered, wait_for},
    stable_diffusion::{EngineSettings, StableDiffusion},
};
use crate::{
    dispatch::ports::{CanvasState, Engine, EngineError, IntoRgb, PaintOrder},
    domain::{ModelInfo, Submission},
    sys::gpu_memory_peak,
};

/// The steps of a canvas of which single ones are timed; the most that a request can have.
const LONG: u32 = 150;
/// Products whose best is the ceiling.
const PRODUCTS: usize = 4;

/// Why a case could not be timed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is no such case of this model.
    #[error("{0}")]
    Case(String),
}

/// One run of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lap {
    /// Of one step of [`BenchPart::Unet`]; of everything in the others.
    pub seconds: f64,
    /// Of the same, where it was looked at.
    pub readings: Readings,
}

/// Which device an engine has, and how it computes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchDevice {
    /// `cpu` or `cuda:N`
    pub name: String,
    /// As the settings name it.
    pub dtype: String,
    /// Threads of one operation on the CPU.
    pub threads: usize,
    /// Same bits in any company.
    pub batch_invariant: bool,
}

/// A model on a device, to be timed.
#[derive(Debug)]
pub struct Bench {
    engine: StableDiffusion,
    placement: Placement,
    infos: Vec<ModelInfo>,
    /// Canvases in the middle of their steps, and the case that they are for.
    moving: Option<(BenchCase, Vec<Canvas>)>,
    /// How many prompts there have been, so that no two are alike.
    prompts: u64,
}

impl Bench {
    /// Loads the first of the settings' models; all its pictures ask for fp8 where it has such weights. To be called on the thread that runs the cases.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn load(settings: &EngineSettings) -> Result<Self, BenchError> {
        let infos = describe_models(&settings.models)?;
        let engine = StableDiffusion::load(settings)?;
        let first = infos.first().map(|info| info.name.as_str()).unwrap_or_default();
        Ok(Self { placement: engine.placement_of(first)?, engine, infos, moving: None, prompts: 0 })
    }

    /// Width of the pictures that the model paints when nothing else is said.
    pub fn default_size(&self) -> u32 {
        self.infos.first().map_or(0, |info| info.default_width)
    }

    /// Where it computes, and how.
    pub fn device(&self) -> BenchDevice {
        let Placement { device, kind, batch_invariant } = self.placement;
        let name = match device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        };
        let dtype = match kind {
            tch::Kind::BFloat16 => "bfloat16",
            tch::Kind::Half => "float16",
            _ => "float32",
        };
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        BenchDevice { name, dtype: dtype.to_owned(), threads, batch_invariant }
    }

    /// The most bytes of a GPU's memory that libtorch has had since this was last asked; none on a CPU.
    pub fn peak_gpu_memory(&self) -> Option<u64> {
        match self.placement.device {
            Device::Cuda(index) => gpu_memory_peak(index).ok(),
            _ => None,
        }
    }

    /// Runs a case once and takes its time.
    ///
    /// # Errors
    /// When the model has no such case, or the engine fails.
    pub fn time(&mut self, case: &BenchCase) -> Result<f64, BenchError> {
        Ok(self.lap(case, None)?.seconds)
    }

    /// Runs a case once and counts its floating-point operations; its time is that of a first run.
    ///
    /// # Errors
    /// As [`Self::time`].
    pub fn count(&mut self, case: &BenchCase) -> Result<Lap, BenchError> {
        self.lap(case, Some(Look::Flops))
    }

    /// Runs a case once and times each kind of operation, for which the device is waited for after each.
    ///
    /// # Errors
    /// As [`Self::time`].
    pub fn profile(&mut self, case: &BenchCase) -> Result<Lap, BenchError> {
        self.lap(case, Some(Look::Seconds(self.placement.device)))
    }

    /// Floating-point operations a second of the product of two square matrices, the best of some: what no network can exceed.
    ///
    /// # Errors
    /// When the device fails.
    pub fn matmul_ceiling(&self, side: u32) -> Result<f64, BenchError> {
        let Placement { device, kind, .. } = self.placement;
        let product = || -> super::layers::Result<f64> {
            let matrix = || Tensor::f_rand([i64::from(side); 2], (tch::Kind::Float, device))?.f_to_kind(kind);
            let (a, b, mut best) = (matrix()?, matrix()?, f64::INFINITY);
            for _ in 0..PRODUCTS {
                wait_for(device);
                let start = Instant::now();
                drop(a.f_matmul(&b)?);
                wait_for(device);
                best = best.min(start.elapsed().as_secs_f64());
            }
            Ok(2.0 * f64::from(side).powi(3) / best)
        };
        product().map_err(|error| engine_error(&error).into())
    }

    fn lap(&mut self, case: &BenchCase, look: Option<Look>) -> Result<Lap, BenchError> {
        if let Some(problem) = case.problem() {
            return Err(BenchError::Case(problem));
        }
        let lap = match case.part {
            BenchPart::TextEncoder | BenchPart::Whole => self.paint(case, look),
            BenchPart::Unet => self.steps(case, look),
            BenchPart::VaeDecode | BenchPart::Preview => self.pixels(case, look),
        }?;
        Ok(lap)
    }

    fn paint(&mut self, case: &BenchCase, look: Option<Look>) -> Result<Lap, BenchError> {
        let orders = case.guided().into_iter().map(|guided| self.order(case, guided)).collect::<Result<Vec<_>, _>>()?;
        let (engine, device) = (&mut self.engine, self.placement.device);
        timed(look, device, || {
            let mut canvases = begin(engine, &orders)?;
            if case.part == BenchPart::Whole {
                while canvases.iter().any(|canvas| !canvas.is_done()) {
                    step(engine, &mut canvases)?;
                }
                finish(engine, &canvases)?;
            }
            Ok(())
        })
    }

    fn steps(&mut self, case: &BenchCase, look: Option<Look>) -> Result<Lap, BenchError> {
        let mut canvases = self.take_moving(case)?;
        let (engine, device) = (&mut self.engine, self.placement.device);
        let Lap { seconds, readings } = timed(look, device, || (0..case.steps).try_for_each(|_| step(engine, &mut canvases)))?;
        self.moving = Some((*case, canvases));
        let steps = f64::from(case.steps);
        Ok(Lap { seconds: seconds / steps, readings: readings.over(steps) })
    }

    /// Canvases of the case with as many steps left as it takes.
    fn take_moving(&mut self, case: &BenchCase) -> Result<Vec<Canvas>, BenchError> {
        let left = |canvas: &Canvas| canvas.progress().1 - canvas.progress().0;
        match mem::take(&mut self.moving) {
            Some((of, canvases)) if of == *case && canvases.iter().all(|canvas| left(canvas) >= case.steps) => Ok(canvases),
            _ => {
                let long = BenchCase { steps: LONG, ..*case };
                let orders = case.guided().into_iter().map(|guided| self.order(&long, guided)).collect::<Result<Vec<_>, _>>()?;
                Ok(begin(&mut self.engine, &orders)?)
            }
        }
    }

    fn pixels(&mut self, case: &BenchCase, look: Option<Look>) -> Result<Lap, BenchError> {
        let order = self.order(case, false)?;
        let canvases = begin(&mut self.engine, &[order])?;
        let (engine, device) = (&mut self.engine, self.placement.device);
        timed(look, device, || match case.part {
            BenchPart::Preview => {
                let frames = canvases.iter().map(|canvas| engine.preview(canvas)).collect::<Result<Vec<_>, _>>()?;
                frames.into_iter().flatten().try_for_each(|frame| frame.into_rgb().map(drop))
            }
            _ => finish(engine, &canvases),
        })
    }

    /// An order of one picture whose prompt is new.
    fn order(&mut self, case: &BenchCase, guided: bool) -> Result<PaintOrder, BenchError> {
        self.prompts += 1;
        let mut body = json!({
            "prompt": format!("a photograph of a red house by a lake, number {}", self.prompts),
            "num_inference_steps": case.steps,
            "guidance_scale": if guided { 7.5 } else { 1.0 },
            "scheduler": "ddim",
            "seed": self.prompts,
            "fp8_linears": self.infos.first().is_some_and(|info| info.takes("fp8_linears")),
        });
        if let Some(size) = case.size {
            body["width"] = size.into();
            body["height"] = size.into();
        }
        let submission = Submission::parse(body, &self.infos, 0).map_err(|errors| {
            let problems = errors.iter().map(|error| format!("{}: {}", error.pointer.trim_start_matches('/'), error.detail));
            BenchError::Case(problems.collect::<Vec<_>>().join("; "))
        })?;
        PaintOrder::of(submission).map_err(|error| BenchError::Case(error.to_string()))
    }
}

fn begin(engine: &mut StableDiffusion, orders: &[PaintOrder]) -> Result<Vec<Canvas>, EngineError> {
    let mut canvases = Vec::new();
    for order in orders {
        canvases.append(&mut engine.begin(order, 0..1)?.canvases);
    }
    Ok(canvases)
}

fn step(engine: &mut StableDiffusion, canvases: &mut [Canvas]) -> Result<(), EngineError> {
    engine.step(&mut canvases.iter_mut().collect::<Vec<_>>())?.into_iter().collect()
}

fn finish(engine: &mut StableDiffusion, canvases: &[Canvas]) -> Result<(), EngineError> {
    let frames = engine.finish(&canvases.iter().collect::<Vec<_>>())?;
    frames.into_iter().try_for_each(|frame| frame.into_rgb().map(drop))
}

/// Takes the time of work on a device, from rest to rest, and looks at what it does.
fn timed(look: Option<Look>, device: Device, work: impl FnOnce() -> Result<(), EngineError>) -> Result<Lap, BenchError> {
    wait_for(device);
    let start = Instant::now();
    let (done, readings) = match look {
        Some(look) => metered(look, work),
        None => (work(), Readings::default()),
    };
    wait_for(device);
    let seconds = start.elapsed().as_secs_f64();
    done?;
    Ok(Lap { seconds, readings })
}
