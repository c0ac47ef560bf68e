//! Model folders that are not as they should be.

use std::{collections::BTreeMap, fs, path::Path};

use easel::diffusion::ClipTokenizer;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

/// Copies the demo model to `folder`, and makes the embedding of `word` NaN.
pub(crate) fn model_with_a_broken_word(folder: &Path, word: &str) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    copy_folder(&demo, folder);
    let id = ClipTokenizer::load(&demo.join("tokenizer")).unwrap().encode(word).unwrap().ids[1];
    let file = folder.join("text_encoder/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let (at, length) = row(&bytes, usize::try_from(id).unwrap());
    // All bits set is NaN, whatever the float's width.
    bytes[at..at + length].fill(0xFF);
    fs::write(&file, bytes).unwrap();
}

/// Copies the demo model to `folder`, and gives it the scheduler of a class that is not served.
pub(crate) fn model_with_an_unserved_scheduler(folder: &Path) {
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"), folder);
    let file = folder.join("scheduler/scheduler_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["_class_name"] = "MagicScheduler".into();
    fs::write(&file, config.to_string()).unwrap();
}

/// Copies the demo model to `folder`, and gives the last layer of its VAE's decoder float32 weights of which bfloat16 makes infinity: they
/// stand where the layer before is always zero, so that float32 is not troubled by them.
pub(crate) fn model_with_an_overflowing_vae(folder: &Path) {
    change_last_layer(folder, f32::MAX);
}

/// Copies the demo model to `folder`, and makes a weight of its VAE's decoder NaN.
pub(crate) fn model_with_a_broken_vae(folder: &Path) {
    change_last_layer(folder, f32::NAN);
}

/// Makes the first channel before the decoder's last layer zero, and that layer's weight for it `weight`.
fn change_last_layer(folder: &Path, weight: f32) {
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"), folder);
    let file = folder.join("vae/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut changed: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> =
        tensors.iter().map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))).collect();
    for name in ["decoder.conv_norm_out.weight", "decoder.conv_norm_out.bias"] {
        changed.get_mut(name).unwrap().2[..2].fill(0);
    }
    let (dtype, shape, data) = changed.get_mut("decoder.conv_out.weight").unwrap();
    let (outputs, inputs) = (shape[0], shape[1]);
    *data = last_layer(outputs, inputs, weight).into_iter().flat_map(f32::to_le_bytes).collect();
    *dtype = Dtype::F32;
    let views = changed.iter().map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Weights `[outputs, inputs, 3, 3]`: the centre of the first channel is `weight`, the other channels are small and of all kinds.
fn last_layer(outputs: usize, inputs: usize, weight: f32) -> Vec<f32> {
    let mut values: Vec<f32> = (0..outputs * inputs * 9).map(|at| (at * 7919 % 13) as f32 / 60.0 - 0.1).collect();
    for output in values.chunks_mut(inputs * 9) {
        output[..9].fill(0.0);
        output[4] = weight;
    }
    values
}

/// Where the token embedding of a token lies in the file, and how long it is.
fn row(file: &[u8], id: usize) -> (usize, usize) {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let embeddings = tensors.iter().find(|(name, _)| name.ends_with("token_embedding.weight")).unwrap().1;
    let length = embeddings.data().len() / embeddings.shape()[0];
    let start = embeddings.data().as_ptr() as usize - file.as_ptr() as usize;
    (start + id * length, length)
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Takes the second half of a file away.
pub(crate) fn cut_short(file: &Path) {
    let length = fs::metadata(file).unwrap().len();
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length / 2).unwrap();
}
