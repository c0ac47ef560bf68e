//! Folders as they come: other names, missing and unused tensors, configs that cannot be honoured.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use easel::{
    diffusion::{
        EngineSettings, GpuSettings, LoadError, ModelFolder, Precision, ResidencySettings, StableDiffusion, VaeTiling,
        describe_models,
    },
    domain::Task,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use super::golden;

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(|_| ()).unwrap()
        }
    }
}

/// A copy of the small Stable Diffusion 2 model, to be changed.
fn scratch_model() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    copy_folder(&golden("tiny-sd2"), scratch.path());
    let path = scratch.path().to_owned();
    (scratch, path)
}

fn load(path: &Path) -> Result<StableDiffusion, LoadError> {
    StableDiffusion::load(&EngineSettings {
        device: "cpu".to_owned(),
        dtype: Precision::Float32,
        batch_invariant: None,
        gpu: GpuSettings::default(),
        threads: 0,
        vae_tiling: VaeTiling::Auto,
        vae_memory: None,
        prompt_cache: 0,
        prompt_kv_cache: 0,
        models: vec![folder(path)],
        residency: ResidencySettings::default(),
    })
}

fn folder(path: &Path) -> ModelFolder {
    ModelFolder::new("m", path)
}

/// The error as a person reads it; panics when the model loads.
fn refusal(path: &Path) -> String {
    load(path).err().map(|error| error.to_string()).expect("the model should be refused")
}

/// Rewrites a safetensors file with other names; a name of `None` leaves the tensor out.
fn rename_tensors(file: &Path, rename: impl Fn(&str) -> Option<String>) {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let renamed: BTreeMap<String, TensorView> = tensors
        .iter()
        .filter_map(|(name, view)| {
            Some((rename(name)?, TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap()))
        })
        .collect();
    fs::write(file, safetensors::serialize(renamed, None).unwrap()).unwrap();
}

pub(crate) fn edit_json(file: &Path, edit: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    edit(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

#[test]
fn a_text_encoder_loads_with_and_without_the_hubs_prefix() {
    let (_scratch, path) = scratch_model();
    let file = path.join("text_encoder/model.safetensors");
    rename_tensors(&file, |name| Some(name.trim_start_matches("text_model.").to_owned()));
    assert!(load(&path).is_ok());
    rename_tensors(&file, |name| Some(format!("text_model.{name}")));
    assert!(load(&path).is_ok());
}

#[test]
fn position_ids_are_no_weights() {
    let (_scratch, path) = scratch_model();
    let file = path.join("text_encoder/model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ids: Vec<u8> = (0..77_i64).flat_map(i64::to_le_bytes).collect();
    let mut all: BTreeMap<String, TensorView> = tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap()))
        .collect();
    all.insert("text_model.embeddings.position_ids".to_owned(), TensorView::new(Dtype::I64, vec![1, 77], &ids).unwrap());
    fs::write(&file, safetensors::serialize(all, None).unwrap()).unwrap();
    assert!(load(&path).is_ok());
}

#[test]
fn a_vaes_attention_loads_under_its_old_and_its_new_names() {
    let names = [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    let (_scratch, path) = scratch_model();
    let file = path.join("vae/diffusion_pytorch_model.safetensors");
    rename_tensors(&file, |name| Some(names.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new))));
    assert!(load(&path).is_ok());
    rename_tensors(&file, |name| Some(names.iter().fold(name.to_owned(), |name, (old, new)| name.replace(new, old))));
    assert!(load(&path).is_ok());
}

#[test]
fn missing_unused_and_misshapen_tensors_are_listed_by_name() {
    let (_scratch, path) = scratch_model();
    let file = path.join("unet/diffusion_pytorch_model.safetensors");
    rename_tensors(&file, |name| match name {
        "conv_in.bias" => Some("conv_in.surplus".to_owned()),
        "conv_out.bias" => None,
        other => Some(other.to_owned()),
    });
    edit_json(&path.join("unet/config.json"), |config| config["cross_attention_dim"] = json!(999));
    let error = refusal(&path);
    for part in ["2 missing: conv_in.bias, conv_out.bias", "1 unused: conv_in.surplus", "of another shape", "attn2.to_k.weight is"]
    {
        assert!(error.contains(part), "{part:?} in {error}");
    }
}

#[test]
fn a_shard_outside_the_folder_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    copy_folder(&golden("tiny-sd1"), scratch.path());
    edit_json(&scratch.path().join("unet/diffusion_pytorch_model.safetensors.index.json"), |index| {
        index["weight_map"]["conv_in.bias"] = json!("../vae/diffusion_pytorch_model.safetensors");
    });
    assert!(refusal(scratch.path()).contains("not a plain file name"));
}

#[test]
fn a_truncated_file_is_refused_by_its_name() {
    let (_scratch, path) = scratch_model();
    let file = path.join("vae/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let error = refusal(&path);
    assert!(error.contains("vae/diffusion_pytorch_model.safetensors") && error.contains("truncated: the tensor "), "{error}");
}

#[test]
fn a_config_that_cannot_be_honoured_names_its_key() {
    for (file, key, value) in [
        ("unet/config.json", "addition_embed_type", json!("text_time")),
        ("unet/config.json", "act_fn", json!("tanh")),
        ("unet/config.json", "layers_per_block", json!([1, 2])),
        ("vae/config.json", "shift_factor", json!(0.1)),
        ("scheduler/scheduler_config.json", "use_lu_lambdas", json!(true)),
        ("model_index.json", "_class_name", json!("StableDiffusion3Pipeline")),
    ] {
        let (_scratch, path) = scratch_model();
        edit_json(&path.join(file), |config| config[key] = value.clone());
        let error = refusal(&path);
        assert!(error.contains(file), "{file} in {error}");
        assert!(error.contains(key) || error.contains("tanh") || error.contains("Diffusion3"), "{key} in {error}");
    }
}

#[test]
fn a_folders_own_scheduler_is_the_default() {
    for (class, keys, name) in [
        ("PNDMScheduler", json!({"skip_prk_steps": true}), "pndm"),
        ("DPMSolverMultistepScheduler", json!({"use_karras_sigmas": true}), "dpmpp_2m_karras"),
        ("DPMSolverMultistepScheduler", json!({"solver_order": 3}), "dpmpp_3m"),
        ("DPMSolverMultistepScheduler", json!({"algorithm_type": "sde-dpmsolver++"}), "dpmpp_2m_sde"),
        ("DPMSolverMultistepScheduler", json!({"algorithm_type": "sde-dpmsolver++", "solver_order": 3}), "dpmpp_3m_sde"),
        ("DPMSolverMultistepScheduler", json!({"algorithm_type": "dpmsolver"}), "ddim"),
        ("EulerDiscreteScheduler", json!({"use_beta_sigmas": true}), "euler_beta"),
        ("EulerAncestralDiscreteScheduler", json!({"use_karras_sigmas": true}), "euler_ancestral"),
        ("HeunDiscreteScheduler", json!({"use_exponential_sigmas": true}), "heun_exponential"),
        ("DEISMultistepScheduler", json!({"algorithm_type": "deis", "solver_order": 3}), "deis"),
        ("UniPCMultistepScheduler", json!({"solver_order": 3, "solver_type": "bh2"}), "unipc"),
        ("LCMScheduler", json!({}), "lcm"),
    ] {
        let (_scratch, path) = scratch_model();
        edit_json(&path.join("scheduler/scheduler_config.json"), |config| {
            config["_class_name"] = json!(class);
            keys.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        });
        let model = &describe_models(&[folder(&path)]).unwrap()[0];
        assert_eq!(model.default_scheduler.as_str(), name, "{class} with {keys}");
    }
}

#[test]
fn a_unet_whose_input_channels_mean_nothing_is_refused_with_what_they_may_be() {
    let (_scratch, path) = scratch_model();
    edit_json(&path.join("unet/config.json"), |config| config["in_channels"] = json!(5));
    let error = refusal(&path);
    assert!(error.contains("takes 5 channels and gives 4") && error.contains("twice as many and one (inpainting)"), "{error}");
}

#[test]
fn the_input_channels_say_what_a_model_can_do() {
    for (name, tasks) in
        [("tiny-inpaint", vec![Task::Text2img, Task::Img2img, Task::Inpainting]), ("tiny-edit", vec![Task::InstructPix2pix])]
    {
        let (_scratch, path) = scratch_model();
        copy_folder(&golden(name), &path);
        assert_eq!(describe_models(&[folder(&path)]).unwrap()[0].tasks, tasks);
    }
}

#[test]
fn a_model_without_text_may_have_its_files_beside_its_index() {
    let scratch = tempfile::tempdir().unwrap();
    copy_folder(&golden("tiny-ddpm"), scratch.path());
    for part in ["unet", "scheduler"] {
        copy_folder(&scratch.path().join(part), scratch.path());
        fs::remove_dir_all(scratch.path().join(part)).unwrap();
    }
    assert!(load(scratch.path()).is_ok());
    fs::remove_file(scratch.path().join("scheduler_config.json")).unwrap();
    assert!(refusal(scratch.path()).contains("scheduler"));
}

#[test]
fn what_the_maths_of_a_model_do_not_allow_is_known_from_its_config() {
    let (_scratch, path) = scratch_model();
    edit_json(&path.join("scheduler/scheduler_config.json"), |config| {
        config["rescale_betas_zero_snr"] = json!(true);
        config["timestep_spacing"] = json!("trailing");
        config["prediction_type"] = json!("epsilon");
    });
    let model = &describe_models(&[folder(&path)]).unwrap()[0];
    let most = |name: &str| model.scheduler_limits.iter().find(|limit| limit.algorithm.name() == name).map(|limit| limit.max_steps);
    assert_eq!((most("ddim"), most("lcm"), most("euler")), (Some(0), Some(0), Some(1000)));
    edit_json(&path.join("scheduler/scheduler_config.json"), |config| config["prediction_type"] = json!("v_prediction"));
    let model = &describe_models(&[folder(&path)]).unwrap()[0];
    let most = |name: &str| model.scheduler_limits.iter().find(|limit| limit.algorithm.name() == name).map(|limit| limit.max_steps);
    assert_eq!((most("ddim"), most("lcm"), most("unipc")), (Some(1000), Some(50), Some(999)));
}

#[test]
fn pythons_infinities_are_read() {
    let (_scratch, path) = scratch_model();
    let file = path.join("scheduler/scheduler_config.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen('{', "{\"lambda_min_clipped\": -Infinity, ", 1)).unwrap();
    assert!(load(&path).is_ok());
}

#[test]
fn a_folder_that_is_no_model_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    let error = describe_models(&[folder(empty.path())]).unwrap_err().to_string();
    assert!(error.contains("model_index.json"), "{error}");
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    for (name, part) in [("cuda:0", "is not there"), ("gpu", "must be \"auto\", \"cpu\" or \"cuda:N\"")] {
        let settings = EngineSettings {
            device: name.to_owned(),
            dtype: Precision::Auto,
            batch_invariant: None,
            gpu: GpuSettings::default(),
            threads: 0,
            vae_tiling: VaeTiling::Auto,
            vae_memory: None,
            prompt_cache: 0,
            prompt_kv_cache: 0,
            models: vec![folder(&golden("tiny-sd2"))],
            residency: ResidencySettings::default(),
        };
        let error = StableDiffusion::load(&settings).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
}
