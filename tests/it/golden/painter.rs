//! Runs the cases of the golden files (and those of `make parity`) through the engine.

use std::{fs, path::Path};

use easel::{
    diffusion::{
        EngineSettings, GpuSettings, ModelFolder, Precision, ResidencySettings, StableDiffusion, VaeTiling, describe_models,
    },
    dispatch::ports::{CanvasState, Engine, PaintOrder},
    domain::{ModelInfo, Submission},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{folders::copy_folder, golden};

/// What a picture in progress is to the engine.
pub(super) type Canvas = <StableDiffusion as Engine>::Canvas;

/// An engine with the models of a case.
pub(super) struct Painter {
    pub(super) engine: StableDiffusion,
    models: Vec<ModelInfo>,
    _scratch: TempDir,
}

impl Painter {
    /// Loads the case's model, and its refiner, if it has one.
    pub(super) fn load(case: &Value) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut served = vec![model_folder(case, scratch.path())];
        served.extend(case["request"]["refiner"].as_str().map(|name| ModelFolder::new(name, golden(name))));
        let models = describe_models(&served).unwrap();
        let settings = EngineSettings {
            device: "cpu".to_owned(),
            dtype: Precision::Float32,
            batch_invariant: Some(true),
            gpu: GpuSettings::default(),
            threads: 0,
            vae_tiling: VaeTiling::Auto,
            vae_memory: None,
            prompt_cache: 64 << 20,
            prompt_kv_cache: 256 << 20,
            models: served,
            residency: ResidencySettings::default(),
        };
        Self { engine: StableDiffusion::load(&settings).unwrap(), models, _scratch: scratch }
    }

    /// The canvases of the case's request when their last step is done; else what is said to the client.
    pub(super) fn paint(&mut self, case: &Value) -> Result<Vec<Canvas>, String> {
        let submission = Submission::parse(request_body(case), &self.models, 0).map_err(|errors| format!("{errors:?}"))?;
        let images = submission.request.num_images;
        let order = PaintOrder::of(submission).unwrap();
        let mut canvases = self.engine.begin(&order, 0..images).map_err(|error| error.to_string())?.canvases;
        while !canvases[0].is_done() {
            let mut batch: Vec<_> = canvases.iter_mut().collect();
            let answers = self.engine.step(&mut batch).map_err(|error| error.to_string())?;
            answers.into_iter().collect::<Result<(), _>>().map_err(|error| error.to_string())?;
        }
        Ok(canvases)
    }
}

/// The case's model; laid over another, or with its own scheduler config, if the case says so.
fn model_folder(case: &Value, scratch: &Path) -> ModelFolder {
    let name = case["model"].as_str().unwrap();
    let source = match name {
        "demo" => Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"),
        other => golden(other),
    };
    let path = if let Some(base) = case["base"].as_str() {
        copy_folder(&golden(base), scratch);
        copy_folder(&source, scratch);
        scratch.to_owned()
    } else if case["scheduler_config"].is_null() {
        source
    } else {
        copy_folder(&source, scratch);
        fs::write(scratch.join("scheduler/scheduler_config.json"), case["scheduler_config"].to_string()).unwrap();
        scratch.to_owned()
    };
    ModelFolder::new(name, path)
}

fn request_body(case: &Value) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut body = case["request"].clone();
    for (field, key) in [("image", "image_file"), ("mask_image", "mask_file")] {
        if let Some(file) = case[key].as_str() {
            body[field] = json!(STANDARD.encode(fs::read(golden(file)).unwrap()));
        }
    }
    body
}

/// A tensor of a safetensors file in float32.
pub(super) fn float32_tensor(file: &[u8], name: &str) -> Vec<f32> {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    let data = tensors.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// max |x|; a NaN where there is one.
pub(super) fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.map(f32::abs).max_by(f32::total_cmp).unwrap_or_default()
}
