//! Every kind of file is called by its name, and only whole models are loaded.

use std::{collections::BTreeMap, fs, path::Path};

use easel::diffusion::{Conversion, FileKind, FileSettings, convert, inspect};
use safetensors::{Dtype, tensor::TensorView};

use super::{model, refusal, single_file};

fn write(file: &Path, keys: &[(&str, &[usize])]) {
    let longest = keys.iter().map(|(_, shape)| shape.iter().product::<usize>()).max().unwrap();
    let zeros = vec![0; longest * 2];
    let view =
        |shape: &[usize]| TensorView::new(Dtype::F16, shape.to_vec(), &zeros[..shape.iter().product::<usize>() * 2]).unwrap();
    let views: BTreeMap<&str, TensorView> = keys.iter().map(|(key, shape)| (*key, view(shape))).collect();
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn adapters_and_parts_are_called_by_their_names() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("x.safetensors");
    for (key, shape, kind, name) in [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", [4, 320].as_slice(), FileKind::Lora, "a LoRA"),
        ("unet.down_blocks.0.attentions.0.to_k.lora_A.weight", &[4, 320], FileKind::Lora, "a LoRA"),
        ("emb_params", &[3, 768], FileKind::TextualInversion, "a textual inversion"),
        ("<my-cat>", &[1, 768], FileKind::TextualInversion, "a textual inversion"),
        ("control_model.input_hint_block.0.weight", &[16, 3, 3, 3], FileKind::ControlNet, "a ControlNet"),
        ("controlnet_cond_embedding.conv_in.weight", &[16, 3, 3, 3], FileKind::ControlNet, "a ControlNet"),
        ("image_proj.proj.weight", &[8, 8], FileKind::IpAdapter, "an IP-Adapter"),
        ("decoder.up.0.block.0.conv1.weight", &[8, 8, 3, 3], FileKind::Unknown, "an unknown kind"),
        ("encoder.down.0.block.0.conv1.weight", &[8, 8, 3, 3], FileKind::Vae, "a VAE"),
        ("model.diffusion_model.joint_blocks.0.x", &[8, 8], FileKind::Transformer, "a diffusion transformer"),
        ("text_model.embeddings.token_embedding.weight", &[8, 8], FileKind::TextEncoder, "a text encoder"),
        ("something.else", &[8, 8], FileKind::Unknown, "an unknown kind"),
    ] {
        write(&file, &[(key, shape)]);
        let found = inspect(&file).unwrap();
        assert_eq!(found.kind, Some(kind), "{key}");
        assert!(found.description.contains(name), "{} of {key}", found.description);
        let error = refusal(&file, FileSettings::default());
        assert!(error.contains(&format!("this is {}", found.description)), "{error}");
    }
}

#[test]
fn a_model_is_told_by_family_parts_and_size() {
    let (_scratch, file) = single_file("tiny-sd2");
    for (path, layout) in [(model("tiny-sd2"), "folder"), (file, "file")] {
        let found = inspect(&path).unwrap();
        assert_eq!((found.layout, found.is_adapter), (layout, false));
        assert_eq!(found.description, "Stable Diffusion 2 (StableDiffusionPipeline)");
        assert_eq!(found.prediction_type.as_deref(), Some("v_prediction"));
        let names: Vec<&str> = found.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["text_encoder", "unet", "vae"]);
        assert!(found.parts.iter().all(|part| part.bytes == 4 * part.parameters && part.dtypes.contains("F32")));
    }
}

#[test]
fn folders_of_every_family_are_told_and_only_those_with_a_single_file_become_one() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, description) in [
        ("tiny-sdxl-refiner", "the refiner of Stable Diffusion XL (StableDiffusionXLImg2ImgPipeline)"),
        ("tiny-lcm", "Stable Diffusion 1 (LatentConsistencyModelPipeline)"),
        ("tiny-ldm", "latent diffusion (LDMTextToImagePipeline)"),
        ("tiny-ddpm", "unconditional: it takes no text (DDPMPipeline)"),
    ] {
        let found = inspect(&model(name)).unwrap();
        assert_eq!(found.description, description);
        assert!(found.missing.is_empty(), "{:?} of {name}", found.missing);
    }
    for name in ["tiny-ldm", "tiny-ldm-faces", "tiny-ddpm"] {
        let target = scratch.path().join("x.safetensors");
        let error = convert(&model(name), &target, &Conversion::default(), &mut |_, _| {}).unwrap_err().to_string();
        assert!(
            error.contains("is none of Stable Diffusion's pipelines, and such models have no single file") && !target.exists(),
            "{error}"
        );
    }
}

#[test]
fn single_files_of_other_families_are_not_taken_for_stable_diffusion() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("x.safetensors");
    let unet = ("model.diffusion_model.input_blocks.0.0.weight", [8, 4, 3, 3].as_slice());
    let attends = ("model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", [8, 8].as_slice());
    for (sign, family) in [
        (("cond_stage_model.transformer.token_emb.weight", [8, 8].as_slice()), "latent diffusion as in its paper"),
        (("edm_mean", &[4]), "EDM noise levels"),
    ] {
        write(&file, &[unet, attends, sign]);
        let error = refusal(&file, FileSettings::default());
        assert!(error.contains(family), "{error}");
    }
    write(&file, &[unet]);
    assert!(refusal(&file, FileSettings::default()).contains("its UNet takes no text"));
}

#[test]
fn a_part_of_a_model_is_no_model() {
    let found = inspect(&model("tiny-sd2").join("vae")).unwrap();
    assert_eq!((found.description.as_str(), found.layout), ("AutoencoderKL", "folder"));
    let found = inspect(&model("tiny-sd2").join("vae/diffusion_pytorch_model.safetensors")).unwrap();
    assert_eq!(found.kind, Some(FileKind::Vae));
}

#[test]
fn pickles_are_refused_with_the_reason_and_a_way() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["model.ckpt", "model.PT", "model.bin"] {
        let file = scratch.path().join(name);
        fs::write(&file, b"PK\x03\x04").unwrap();
        for error in [refusal(&file, FileSettings::default()), inspect(&file).unwrap_err().to_string()] {
            assert!(error.contains("runs whatever code is in it") && error.contains("save_file"), "{error}");
        }
    }
}
