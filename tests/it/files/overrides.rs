//! Parts from elsewhere, and what is said when one is missing.

use std::path::Path;

use easel::diffusion::{FileSettings, inspect, schedulers::PredictionType};

use super::{convert_to, metadata, model, paint, refusal, rewrite, single_file};

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
