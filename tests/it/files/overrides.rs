//! Parts from elsewhere, and what is said when one is missing.

use std::{collections::BTreeMap, fs, path::Path};

use easel::diffusion::{FileSettings, inspect, schedulers::PredictionType};
use safetensors::{Dtype, tensor::TensorView};

use super::{convert_to, metadata, model, paint, published, refusal, rewrite, single_file};

fn vae(path: impl AsRef<Path>) -> FileSettings {
    FileSettings { vae: Some(path.as_ref().to_owned()), ..FileSettings::default() }
}

#[test]
fn a_vae_comes_from_a_folder_from_a_file_of_its_own_or_from_another_model() {
    let own = paint(&model("demo"), FileSettings::default());
    let (_scratch, file) = single_file("demo");
    // The model's own VAE in every guise, in the place of itself.
    for (place, path) in
        [("its folder", model("demo").join("vae")), ("the model's folder", model("demo")), ("the model's file", file)]
    {
        assert!(paint(&model("demo"), vae(&path)) == own, "{place}");
    }
    let other = paint(&model("demo"), vae(model("tiny-sd1").join("vae")));
    assert!(other != own);
}

/// Files of one part, which say nothing of how it is built: in the names of diffusers and transformers, and in the original ones.
#[test]
fn a_part_comes_from_a_file_of_its_own_in_either_layout() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, file) = (scratch.path().join("folder"), scratch.path().join("model.safetensors"));
    published(&folder);
    convert_to(&folder, &file);
    let painted = paint(&folder, FileSettings::default());
    let alone = |prefix: &str| {
        let alone = scratch.path().join(format!("{prefix}safetensors"));
        fs::copy(&file, &alone).unwrap();
        rewrite(&alone, None, |key| key.strip_prefix(prefix).map(str::to_owned));
        alone
    };
    for file in [folder.join("vae/diffusion_pytorch_model.safetensors"), alone("first_stage_model.")] {
        assert!(paint(&folder, vae(&file)) == painted, "{file:?}");
        assert!(inspect(&file).unwrap().description == "a VAE");
    }
    let text_encoder = |path| FileSettings { text_encoder: Some(path), ..FileSettings::default() };
    for file in [folder.join("text_encoder/model.safetensors"), alone("cond_stage_model.transformer.")] {
        assert!(paint(&folder, text_encoder(file.clone())) == painted, "{file:?}");
        assert!(inspect(&file).unwrap().description == "a text encoder");
    }
}

#[test]
fn a_file_without_vae_or_text_encoder_says_what_is_missing() {
    for (prefix, part, settings) in [
        ("first_stage_model.", "vae", vae(model("tiny-sd1"))),
        (
            "cond_stage_model.",
            "text_encoder",
            FileSettings { text_encoder: Some(model("tiny-sd1").join("text_encoder")), ..FileSettings::default() },
        ),
    ] {
        let (_scratch, file) = single_file("tiny-sd1");
        let held = metadata(&file);
        rewrite(&file, Some(held), |key| (!key.starts_with(prefix)).then(|| key.to_owned()));
        let error = refusal(&file, FileSettings::default());
        let way = "; the model's settings can name a file or a folder that has them: ";
        assert!(error.contains(&format!("these parts are missing: {part}{way}{part}")), "{error}");
        assert_eq!(inspect(&file).unwrap().missing, [part]);
        let painted = paint(&model("tiny-sd1"), FileSettings::default());
        assert!(paint(&file, settings.clone()) == painted, "{part}");
        // A folder of that file says that it does without; the settings know better.
        let folder = file.with_extension("");
        convert_to(&file, &folder);
        let error = refusal(&folder, FileSettings::default());
        assert!(error.contains("settings can name") && error.contains(part), "{error}");
        assert!(paint(&folder, settings) == painted, "{part}");
    }
}

#[test]
fn a_part_that_the_pipeline_does_not_have_is_not_set() {
    let settings = FileSettings { text_encoder_2: Some(model("tiny-sdxl")), ..FileSettings::default() };
    let error = refusal(&model("tiny-sd1"), settings);
    assert!(error.contains("the settings give it a text_encoder_2, which StableDiffusionPipeline does not have"), "{error}");
    let error = refusal(&model("tiny-ldm"), vae(model("tiny-sd1")));
    assert!(error.contains("a vae, which LDMTextToImagePipeline does not have"), "{error}");
}

#[test]
fn a_file_that_is_no_vae_is_not_taken_for_one() {
    let file = model("tiny-sd2").join("text_encoder/model.safetensors");
    let error = refusal(&model("tiny-sd1"), vae(&file));
    assert!(error.contains("there is no vae in it; this is a text encoder"), "{error}");
}

#[test]
fn the_prediction_type_is_told_by_the_settings_then_by_the_file() {
    let (_scratch, file) = single_file("tiny-sd1");
    let told = |path: &Path| inspect(path).unwrap().prediction_type.unwrap();
    assert_eq!(told(&file), "epsilon");
    // Without the configs that Easel writes, the metadata and the marker keys of others count.
    let spec = [("modelspec.prediction_type".to_owned(), "v".to_owned())].into();
    rewrite(&file, Some(spec), |key| Some(key.to_owned()));
    assert_eq!(told(&file), "v_prediction");
    super::copy_tensors(&file, Default::default(), |key| match key {
        "model.diffusion_model.out.2.bias" => vec![key.to_owned(), "v_pred".to_owned(), "ztsnr".to_owned()],
        other => vec![other.to_owned()],
    });
    assert_eq!(told(&file), "v_prediction");
    let velocity = FileSettings { prediction_type: Some(PredictionType::VPrediction), ..FileSettings::default() };
    assert!(paint(&model("demo"), velocity) != paint(&model("demo"), FileSettings::default()));
}

/// A Stable Diffusion 2 of hardly any numbers but these: the bias that tells its kind, and the training step.
fn write_sd2(file: &Path, bias: [f32; 4], step: Option<i64>) {
    const UNET: &str = "model.diffusion_model.";
    let (zeros, bias) = (vec![0; 16 * 4], bias.map(f32::to_le_bytes).concat());
    let step = step.map(i64::to_le_bytes);
    let mut views = BTreeMap::new();
    let mut add = |key: String, shape: &[usize]| {
        let bytes = &zeros[..shape.iter().product::<usize>() * 4];
        views.insert(format!("{UNET}{key}"), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap());
    };
    add("input_blocks.0.0.weight".to_owned(), &[4, 4, 1, 1]);
    add("time_embed.0.weight".to_owned(), &[4, 4]);
    add("out.2.weight".to_owned(), &[4, 4, 1, 1]);
    for block in 1..12 {
        let place = if block % 3 == 0 { "op.weight" } else { "in_layers.0.weight" };
        add(format!("input_blocks.{block}.0.{place}"), &[4]);
    }
    add("input_blocks.1.1.proj_in.weight".to_owned(), &[4, 4]);
    add("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight".to_owned(), &[4, 4]);
    for block in 0..12 {
        add(format!("output_blocks.{block}.0.in_layers.0.weight"), &[4]);
        add(format!("output_blocks.{block}.1.proj_in.weight"), &[4, 4]);
    }
    let key = format!("{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias");
    views.insert(key, TensorView::new(Dtype::F32, vec![4], &bias).unwrap());
    if let Some(step) = &step {
        views.insert("global_step".to_owned(), TensorView::new(Dtype::I64, vec![], step).unwrap());
    }
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The hints that diffusers (the step) and ComfyUI (the bias) go by.
#[test]
fn a_stable_diffusion_2_that_predicts_the_velocity_is_told_by_its_step_or_by_a_bias() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("x.safetensors");
    let (narrow, wide) = ([0.01, -0.01, 0.01, -0.01], [0.2, -0.2, 0.2, -0.2]);
    for (bias, step, told) in [
        (narrow, None, "epsilon"),
        (wide, None, "v_prediction"),
        (wide, Some(875_000), "epsilon"),
        (narrow, Some(110_000), "v_prediction"),
    ] {
        write_sd2(&file, bias, step);
        let found = inspect(&file).unwrap();
        assert_eq!(found.description, "Stable Diffusion 2 (StableDiffusionPipeline)");
        assert_eq!(found.prediction_type.as_deref(), Some(told), "{bias:?} {step:?}");
        assert_eq!(found.missing, ["text_encoder", "vae"]);
    }
}
