//! Checkpoints as people have them: single files and folders, each other's equals; adapters and parts; and files that mean harm.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use easel::{
    diffusion::{
        Conversion, EngineSettings, FileSettings, GpuSettings, LoadError, ModelFolder, Precision, ResidencySettings,
        StableDiffusion, VaeTiling, convert, describe_models,
    },
    dispatch::ports::{CanvasState, Engine, IntoRgb, PaintOrder},
    domain::Submission,
};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::json;

use crate::golden::{copy_folder, edit_json};

mod found_in_the_wild;
mod fuzz;
mod hostile;
mod inspecting;
mod overrides;
mod round_trip;
mod terminal;

/// A folder of `tests/golden`, or the demo model.
fn model(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if name == "demo" { root.join("models/demo") } else { root.join("tests/golden").join(name) }
}

/// The demo model with what shapes do not tell, the heads and the groups, as published with Stable Diffusion 1.
fn published(folder: &Path) {
    copy_folder(&model("demo"), folder);
    edit_json(&folder.join("unet/config.json"), |config| {
        config["norm_num_groups"] = json!(32);
        config["attention_head_dim"] = json!(8);
    });
    edit_json(&folder.join("vae/config.json"), |config| {
        config["norm_num_groups"] = json!(32);
        config["scaling_factor"] = json!(0.18215);
    });
    edit_json(&folder.join("text_encoder/config.json"), |config| config["num_attention_heads"] = json!(2));
}

fn convert_to(source: &Path, target: &Path) {
    let how = Conversion { dtype: Precision::Auto, files: FileSettings::default() };
    convert(source, target, &how, &mut |_, _| {}).unwrap();
}

/// The single file of a model, in a folder of its own.
fn single_file(name: &str) -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("model.safetensors");
    convert_to(&model(name), &file);
    (scratch, file)
}

fn load(path: &Path, files: FileSettings) -> Result<StableDiffusion, LoadError> {
    StableDiffusion::load(&settings(path, files))
}

fn settings(path: &Path, files: FileSettings) -> EngineSettings {
    EngineSettings {
        device: "cpu".to_owned(),
        dtype: Precision::Float32,
        batch_invariant: Some(true),
        gpu: GpuSettings::default(),
        threads: 0,
        vae_tiling: VaeTiling::Auto,
        vae_memory: None,
        prompt_cache: 0,
        prompt_kv_cache: 0,
        residency: ResidencySettings::default(),
        models: vec![ModelFolder { files, ..ModelFolder::new("m", path) }],
    }
}

fn refusal(path: &Path, files: FileSettings) -> String {
    load(path, files).err().map(|error| error.to_string()).expect("the model should be refused")
}

/// The pixels of a small picture with a prompt, guidance and a scheduler, by the whole engine.
fn paint(path: &Path, files: FileSettings) -> Vec<u8> {
    let settings = settings(path, files);
    let models = describe_models(&settings.models).unwrap();
    let body = json!({"prompt": "a red house", "negative_prompt": "blue", "seed": 7, "num_inference_steps": 3, "guidance_scale": 4.0,
        "scheduler": "ddim", "width": 64, "height": 64});
    let submission = Submission::parse(body, &models, 0).unwrap();
    let mut engine = StableDiffusion::load(&settings).unwrap();
    let order = PaintOrder::of(submission).unwrap();
    let mut canvases = engine.begin(&order, 0..1).unwrap().canvases;
    while !canvases[0].is_done() {
        engine.step(&mut canvases.iter_mut().collect::<Vec<_>>()).unwrap().into_iter().for_each(|answer| answer.unwrap());
    }
    let frames = engine.finish(&canvases.iter().collect::<Vec<_>>()).unwrap();
    frames.into_iter().next().unwrap().into_rgb().unwrap().into_raw()
}

/// A safetensors file's tensors (dtype, shape, bytes) by key.
fn tensors(file: &Path) -> BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    read.iter().map(|(key, view)| (key.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))).collect()
}

/// Writes a file anew with other keys, or without some, and with this metadata.
fn rewrite(file: &Path, metadata: Option<HashMap<String, String>>, rename: impl Fn(&str) -> Option<String>) {
    let held = tensors(file);
    let views: BTreeMap<String, TensorView> = held
        .iter()
        .filter_map(|(key, (dtype, shape, bytes))| Some((rename(key)?, TensorView::new(*dtype, shape.clone(), bytes).unwrap())))
        .collect();
    let written = safetensors::serialize(views, metadata).unwrap();
    fs::write(file, written).unwrap();
}

/// A file of this header (its length first) and so many zeros behind it.
fn write(file: &Path, header: &str, data: usize) {
    let length = (header.len() as u64).to_le_bytes();
    fs::write(file, [length.as_slice(), header.as_bytes(), &vec![0; data]].concat()).unwrap();
}

/// The texts that a file carries.
fn metadata(file: &Path) -> HashMap<String, String> {
    let bytes = fs::read(file).unwrap();
    SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap_or_default()
}

/// Writes a file anew in which a tensor may stand under several keys.
fn copy_tensors(file: &Path, metadata: HashMap<String, String>, keys: impl Fn(&str) -> Vec<String>) {
    let held = tensors(file);
    let copies = held.iter().flat_map(|(key, held)| keys(key).into_iter().map(move |key| (key, held)));
    let views: BTreeMap<String, TensorView> =
        copies.map(|(key, (dtype, shape, bytes))| (key, TensorView::new(*dtype, shape.clone(), bytes).unwrap())).collect();
    let written = safetensors::serialize(views, Some(metadata)).unwrap();
    fs::write(file, written).unwrap();
}

/// Changes the bytes of one tensor.
fn change_tensor(file: &Path, metadata: HashMap<String, String>, key: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut held = tensors(file);
    change(&mut held.get_mut(key).unwrap().2);
    let views: BTreeMap<&String, TensorView> =
        held.iter().map(|(key, (dtype, shape, bytes))| (key, TensorView::new(*dtype, shape.clone(), bytes).unwrap())).collect();
    let written = safetensors::serialize(views, Some(metadata)).unwrap();
    fs::write(file, written).unwrap();
}
