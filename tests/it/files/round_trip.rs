//! A folder and the file that it becomes hold the same model, whatever its shape.

use std::{collections::HashMap, fs, path::Path};

use easel::diffusion::{Conversion, FileSettings, Precision, convert, inspect};
use serde_json::Value;

use super::{convert_to, load, metadata, model, paint, published, refusal, rewrite, single_file, tensors};
use crate::golden::copy_folder;

#[test]
fn a_folder_and_the_file_that_it_becomes_paint_the_same_picture() {
    for name in ["tiny-sd1", "tiny-sd2", "tiny-sdxl", "demo"] {
        let (scratch, file) = single_file(name);
        let painted = paint(&model(name), FileSettings::default());
        assert!(paint(&file, FileSettings::default()) == painted, "{name} as a file");
        let folder = scratch.path().join("folder");
        convert_to(&file, &folder);
        assert!(paint(&folder, FileSettings::default()) == painted, "{name} as a folder again");
    }
}

#[test]
fn a_file_that_is_converted_to_a_folder_and_back_is_the_same_file() {
    for name in ["tiny-sd1", "tiny-sd2", "tiny-sdxl", "tiny-sdxl-refiner", "tiny-bk-sdm", "tiny-lcm", "tiny-inpaint", "tiny-edit"] {
        let (scratch, file) = single_file(name);
        let (folder, again) = (scratch.path().join("folder"), scratch.path().join("again.safetensors"));
        convert_to(&file, &folder);
        convert_to(&folder, &again);
        assert!(fs::read(&file).unwrap() == fs::read(&again).unwrap(), "{name}");
    }
}

#[test]
fn the_original_layout_has_its_own_keys() {
    for (name, keys) in [
        (
            "tiny-sd1",
            [
                "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
                "first_stage_model.decoder.up.3.block.0.conv1.weight",
                "model.diffusion_model.output_blocks.11.0.skip_connection.weight",
            ],
        ),
        (
            "tiny-sd2",
            [
                "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
                "first_stage_model.encoder.down.0.downsample.conv.bias",
                "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
            ],
        ),
    ] {
        let (_scratch, file) = single_file(name);
        let tensors = tensors(&file);
        for key in keys {
            assert!(tensors.contains_key(key), "{key} of {name}");
        }
        assert_eq!(tensors.contains_key("v_pred"), name == "tiny-sd2");
        assert!(tensors.keys().filter(|key| *key != "v_pred").all(|key| {
            ["cond_stage_model.", "first_stage_model.", "model.diffusion_model."].iter().any(|prefix| key.starts_with(prefix))
        }));
    }
}

/// Shapes do not tell the heads and the groups; with the published ones, nothing else is needed.
#[test]
fn a_file_without_configs_is_read_by_its_shapes() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("folder");
    published(&folder);
    let file = scratch.path().join("model.safetensors");
    convert_to(&folder, &file);
    rewrite(&file, None, |key| Some(key.to_owned()));
    assert!(paint(&file, FileSettings::default()) == paint(&folder, FileSettings::default()));
    let found = inspect(&file).unwrap();
    assert_eq!(found.description, "Stable Diffusion 1 (StableDiffusionPipeline)");
    assert_eq!(found.prediction_type.as_deref(), Some("epsilon"));
}

#[test]
fn bookkeeping_beside_the_weights_is_passed_over() {
    let (_scratch, file) = single_file("tiny-sd1");
    let held = metadata(&file);
    let painted = paint(&file, FileSettings::default());
    let copies = |key: &str| match key {
        "model.diffusion_model.out.2.bias" => vec![key.to_owned(), "alphas_cumprod".to_owned(), "model_ema.decay".to_owned()],
        "first_stage_model.decoder.conv_out.bias" => vec![key.to_owned(), "first_stage_model.loss.logvar".to_owned()],
        other => vec![other.to_owned()],
    };
    super::copy_tensors(&file, held, copies);
    assert!(paint(&file, FileSettings::default()) == painted);
}

#[test]
fn the_averaged_unet_is_taken_only_when_it_is_asked_for() {
    let (_scratch, file) = single_file("tiny-sd1");
    let held = metadata(&file);
    let painted = paint(&file, FileSettings::default());
    let flat = |key: &str| format!("model_ema.{}", key.trim_start_matches("model.").replace('.', ""));
    let copies =
        |key: &str| if key.starts_with("model.diffusion_model.") { vec![key.to_owned(), flat(key)] } else { vec![key.to_owned()] };
    super::copy_tensors(&file, held.clone(), copies);
    // The averaged weights end otherwise, so that it shows which were taken.
    super::change_tensor(&file, held, &flat("model.diffusion_model.out.2.bias"), |bytes| bytes.fill(0));
    let ema = FileSettings { ema: true, ..FileSettings::default() };
    assert!(inspect(&file).unwrap().has_ema);
    assert!(paint(&file, FileSettings::default()) == painted);
    assert!(paint(&file, ema.clone()) != painted);
    let (_other, without) = single_file("tiny-sd1");
    assert!(refusal(&without, ema).contains("ema = true, but there is no tensor model_ema.diffusion_model"));
}

#[test]
fn weights_change_their_dtype_on_the_way() {
    let scratch = tempfile::tempdir().unwrap();
    for (dtype, name, bytes) in [(Precision::Float16, "F16", 2), (Precision::Bfloat16, "BF16", 2), (Precision::Float32, "F32", 4)] {
        let file = scratch.path().join(format!("{name}.safetensors"));
        convert(&model("tiny-sd2"), &file, &Conversion { dtype, files: FileSettings::default() }, &mut |_, _| {}).unwrap();
        let found = inspect(&file).unwrap();
        assert!(found.parts.iter().all(|part| part.dtypes.iter().eq([name]) && part.bytes == part.parameters * bytes), "{found:?}");
        assert!(load(&file, FileSettings::default()).is_ok());
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_half_done_is_left() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("there.safetensors");
    fs::write(&target, "mine").unwrap();
    let how = Conversion { dtype: Precision::Auto, files: FileSettings::default() };
    let error = convert(&model("tiny-sd1"), &target, &how, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
    let broken = scratch.path().join("broken");
    copy_folder(&model("tiny-sd2"), &broken);
    rewrite(&broken.join("text_encoder/model.safetensors"), Some(HashMap::new()), |key| {
        (!key.contains("layers.0.self_attn.v_proj")).then(|| key.to_owned())
    });
    let error = convert(&broken, &scratch.path().join("new.safetensors"), &how, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("text_model.encoder.layers.0.self_attn.q_proj"), "{error}");
    let mut left: Vec<String> =
        fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["broken", "there.safetensors"]);
}

#[test]
fn the_progress_ends_where_the_weights_do() {
    let scratch = tempfile::tempdir().unwrap();
    for target in ["model.safetensors", "folder"] {
        let mut told: Vec<(u64, u64)> = Vec::new();
        let how = Conversion { dtype: Precision::Auto, files: FileSettings::default() };
        convert(&model("tiny-sd1"), &scratch.path().join(target), &how, &mut |done, total| told.push((done, total))).unwrap();
        let (done, total) = *told.last().unwrap();
        assert!(told.is_sorted() && done == total && total == inspect(&scratch.path().join(target)).unwrap().bytes, "{target}");
    }
}

/// The configs of a folder survive the way through a file, but for their form.
#[test]
fn every_config_comes_back() {
    let (scratch, file) = single_file("tiny-sd1");
    let folder = scratch.path().join("folder");
    convert_to(&file, &folder);
    let read = |root: &Path, name: &str| serde_json::from_str::<Value>(&fs::read_to_string(root.join(name)).unwrap()).unwrap();
    for name in [
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
    ] {
        assert_eq!(read(&folder, name), read(&model("tiny-sd1"), name), "{name}");
    }
}
