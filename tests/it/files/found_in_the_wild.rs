//! Checkpoints as other programs leave them.

use std::{collections::HashMap, fs, path::Path};

use easel::diffusion::{Conversion, FileKind, FileSettings, convert, inspect};
use safetensors::Dtype;
use serde_json::json;

use super::{convert_to, metadata, model, paint, refusal, rewrite, single_file, tensors};
use crate::golden::{copy_folder, edit_json};

const UNET: &str = "model.diffusion_model.";

/// Writes a file anew with one tensor more.
fn add(file: &Path, key: &str, dtype: Dtype, bytes: &[u8]) {
    let mut held = tensors(file);
    let shape = vec![bytes.len() * 8 / dtype.bitsize()];
    held.insert(key.to_owned(), (dtype, shape, bytes.to_vec()));
    let views = held.iter().map(|(key, (dtype, shape, bytes))| {
        (key.clone(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let written = safetensors::serialize(views.collect::<Vec<_>>(), Some(metadata(file))).unwrap();
    fs::write(file, written).unwrap();
}

/// The single file of a model with these texts and none of its configs.
fn bare(name: &str, texts: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let (scratch, file) = single_file(name);
    let texts: HashMap<String, String> = texts.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    rewrite(&file, Some(texts), |key| (key != "v_pred").then(|| key.to_owned()));
    (scratch, file)
}

fn predicts(file: &Path) -> String {
    inspect(file).unwrap().prediction_type.unwrap()
}

#[test]
fn what_a_model_predicts_is_read_as_other_programs_write_it() {
    for (texts, told) in [
        (&[("modelspec.predict_key", "v")][..], "v_prediction"),
        (&[("modelspec.prediction_type", "V-prediction")], "v_prediction"),
        (&[("modelspec.prediction_type", "v-zsnr")], "v_prediction"),
        (&[("modelspec.prediction_type", "epsilon")], "epsilon"),
        (&[("modelspec.predict_key", "epsilon")], "epsilon"),
        (&[], "epsilon"),
    ] {
        let (_scratch, file) = bare("tiny-sd1", texts);
        assert_eq!(predicts(&file), told, "{texts:?}");
    }
    let (_scratch, file) = bare("tiny-sd1", &[("modelspec.prediction_type", "epsilon")]);
    add(&file, "v_pred", Dtype::F32, &[]);
    assert_eq!(predicts(&file), "v_prediction", "the marker is what merging keeps true");
}

#[test]
fn a_conversion_says_what_the_model_predicts_and_keeps_what_the_file_said() {
    let (scratch, file) = bare("tiny-sd1", &[("modelspec.predict_key", "v"), ("modelspec.title", "a title")]);
    let again = scratch.path().join("again.safetensors");
    convert_to(&file, &again);
    let texts = metadata(&again);
    assert_eq!((texts["modelspec.prediction_type"].as_str(), texts["modelspec.title"].as_str()), ("v", "a title"));
    assert!(tensors(&again).contains_key("v_pred"));
}

#[test]
fn what_training_left_behind_does_not_matter() {
    let (_scratch, file) = single_file("tiny-sd1");
    let painted = paint(&file, FileSettings::default());
    add(&file, "model.diffusion_model.position_ids", Dtype::I64, &[0; 16]);
    add(&file, "lora_unet_down_blocks_0.lora_down.weight", Dtype::F32, &[0; 16]);
    assert_eq!(inspect(&file).unwrap().kind, Some(FileKind::Checkpoint));
    assert!(paint(&file, FileSettings::default()) == painted);
}

#[test]
fn a_model_within_another_is_not_painted_with() {
    for (key, what) in [
        ("control_model.input_hint_block.0.weight", "a ControlNet with a whole model around it"),
        ("noise_augmentor.data_mean", "an unCLIP model"),
        ("depth_model.model.weight", "depths"),
    ] {
        let (_scratch, file) = single_file("tiny-sd1");
        add(&file, key, Dtype::F32, &[0; 16]);
        let error = refusal(&file, FileSettings::default());
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_tensor_without_which_nothing_can_be_told_is_named() {
    for key in ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"] {
        let (_scratch, file) = single_file("tiny-sd1");
        let held = metadata(&file);
        rewrite(&file, Some(held), |other| (other != key).then(|| other.to_owned()));
        let error = refusal(&file, FileSettings::default());
        assert!(error.contains(&format!("lacks the tensor {key}")), "{error}");
    }
}

#[test]
fn adapters_of_every_program_are_told() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("adapter.safetensors");
    for key in [
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight",
        "unet.mid_block.attentions.0.processor.to_q_lora.down.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight",
        "oft_unet_down_blocks_0.oft_diag",
        "model.diffusion_model.input_blocks.1.1.proj_in.lora_A.weight",
    ] {
        let shape = vec![1, 1];
        let view = safetensors::tensor::TensorView::new(Dtype::F32, shape, &[0; 4]).unwrap();
        fs::write(&file, safetensors::serialize([(key, view)], None).unwrap()).unwrap();
        assert_eq!(inspect(&file).unwrap().kind, Some(FileKind::Lora), "{key}");
    }
}

/// Stable Diffusion 2's text encoder has another activation than OpenAI's, and its file does not say so.
#[test]
fn a_text_encoder_of_stable_diffusion_2_is_the_same_from_a_file_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, file) = (scratch.path().join("folder"), scratch.path().join("model.safetensors"));
    copy_folder(&model("tiny-sd2"), &folder);
    // Shapes do not tell the heads; what is so narrow has one.
    edit_json(&folder.join("text_encoder/config.json"), |config| config["num_attention_heads"] = json!(1));
    convert_to(&folder, &file);
    let own = paint(&folder, FileSettings::default());
    let alone = scratch.path().join("text.safetensors");
    fs::copy(folder.join("text_encoder/model.safetensors"), &alone).unwrap();
    for path in [file, alone, folder.join("text_encoder")] {
        let files = FileSettings { text_encoder: Some(path.clone()), ..FileSettings::default() };
        assert!(paint(&folder, files) == own, "{path:?}");
    }
}

#[test]
fn a_folder_with_an_index_and_no_shards_is_read_from_its_fp16_file() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("folder");
    copy_folder(&model("tiny-sd2"), &folder);
    let unet = folder.join("unet");
    fs::rename(unet.join("diffusion_pytorch_model.safetensors"), unet.join("diffusion_pytorch_model.fp16.safetensors")).unwrap();
    let index = r#"{"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00001-of-00002.safetensors"}}"#;
    fs::write(unet.join("diffusion_pytorch_model.safetensors.index.json"), index).unwrap();
    assert!(paint(&folder, FileSettings::default()) == paint(&model("tiny-sd2"), FileSettings::default()));
}

#[test]
fn strange_files_of_a_folder_do_not_come_into_the_single_file() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, file) = (scratch.path().join("folder"), scratch.path().join("FILE.SAFETENSORS"));
    copy_folder(&model("tiny-sd1"), &folder);
    fs::write(folder.join("unet/config copy.json"), "{}").unwrap();
    fs::write(folder.join("unet/._config.json"), [0xff, 0xfe]).unwrap();
    convert_to(&folder, &file);
    assert!(file.is_file(), "an extension in capitals is one");
    assert!(paint(&file, FileSettings::default()) == paint(&folder, FileSettings::default()));
    let refused = |target: &str| {
        let how = Conversion::default();
        convert(&folder, &scratch.path().join(target), &how, &mut |_, _| {}).unwrap_err().to_string()
    };
    assert!(refused("model.ckpt").contains("pickled"));
    assert!(refused("no/such/model.safetensors").contains("there is no such folder"));
    let ema = FileSettings { ema: true, ..FileSettings::default() };
    assert!(refusal(&folder, ema).contains("ema = true is for single files"));
    assert!(tensors(&file).keys().any(|key| key.starts_with(UNET)));
}
