//! Model folders that are not as they should be.

use std::{fs, path::Path};

use easel::diffusion::ClipTokenizer;
use safetensors::SafeTensors;
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
