//! The networks of latent diffusion's paper and of models without text against diffusers (`tests/golden/maker/latent.py`).

use std::{collections::BTreeMap, fs};

use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::json;
use tch::Tensor;

use super::{
    bert::LdmBertModel,
    clip::HiddenLayer,
    tests::{ON_CPU, assert_close, golden, golden_path},
    unet2d::UNet2DModel,
    vq::{VqConfig, VqModel},
};
use crate::diffusion::files::ModelFiles;

const NETWORKS: &str = "latent-networks.safetensors";

fn files(name: &str) -> ModelFiles {
    ModelFiles::open(&golden_path(name)).unwrap()
}

fn assert_predicts(name: &str, model: &UNet2DModel, timesteps: &[&str]) {
    let golden = golden(NETWORKS);
    for timestep in timesteps {
        let timesteps = Tensor::from_slice(&[timestep.parse::<f32>().unwrap()]);
        let output = model.forward(&golden(&format!("{name}.sample")), &timesteps).unwrap();
        assert_close(&format!("{name} at {timestep}"), &output, &golden(&format!("{name}.output.{timestep}")));
    }
}

/// The model whose time embedding is of Fourier's kind; its golden file holds its weights, too.
fn fourier_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let unet = folder.path().join("unet");
    fs::create_dir(&unet).unwrap();
    fs::write(folder.path().join("model_index.json"), json!({"_class_name": "DDPMPipeline"}).to_string()).unwrap();
    let bytes = fs::read(golden_path(NETWORKS)).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let own: BTreeMap<String, TensorView> =
        all.iter().filter_map(|(name, view)| Some((name.strip_prefix("fourier/")?.to_owned(), view))).collect();
    fs::write(unet.join("diffusion_pytorch_model.safetensors"), safetensors::serialize(own, None).unwrap()).unwrap();
    let config = json!({
        "block_out_channels": [4, 8], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1, "time_embedding_type": "fourier",
        "attention_head_dim": 4, "norm_num_groups": 2, "add_attention": false,
    });
    fs::write(unet.join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn berts_hidden_states_are_those_of_diffusers() {
    let (golden, model) = (golden(NETWORKS), LdmBertModel::load(&files("tiny-ldm"), "bert", ON_CPU).unwrap());
    let ids = Vec::<i64>::try_from(golden("ids")).unwrap();
    let last = HiddenLayer { skipped: 0, final_layer_norm: true };
    assert_close("bert", &model.forward(&ids, last).unwrap(), &golden("bert.last_hidden_state"));
}

#[test]
fn the_vq_model_encodes_and_decodes_as_that_of_diffusers() {
    let (golden, model) = (golden(NETWORKS), VqModel::load(&files("tiny-ldm"), "vqvae", ON_CPU).unwrap());
    let config = VqConfig::read(&files("tiny-ldm"), "vqvae").unwrap();
    let latents = golden("vq.latents") * config.scaling_factor();
    assert_close("the latents", &model.encode(&golden("vq.image")).unwrap(), &latents);
    assert_close("the picture", &model.decode(&latents).unwrap(), &golden("vq.decoded"));
}

#[test]
fn unets_without_text_predict_what_those_of_diffusers_predict() {
    for name in ["tiny-ddpm", "tiny-ddim", "tiny-ldm-faces"] {
        let model = UNet2DModel::load(&files(name), ON_CPU).unwrap();
        assert_predicts(name, &model, &["999", "501.5", "0"]);
    }
}

#[test]
fn a_time_embedding_of_fouriers_kind_is_that_of_diffusers() {
    let folder = fourier_folder();
    let model = UNet2DModel::load(&ModelFiles::open(folder.path()).unwrap(), ON_CPU).unwrap();
    assert_predicts("fourier", &model, &["999", "0.25"]);
}

#[test]
fn a_config_of_a_unet_without_text_that_cannot_be_honoured_names_its_key() {
    for (key, value) in [
        ("num_class_embeds", json!(10)),
        ("time_embedding_type", json!("learned")),
        ("down_block_types", json!(["SkipDownBlock2D", "DownBlock2D"])),
        ("attention_head_dim", json!(3)),
        ("norm_num_groups", json!(3)),
        ("layers_per_block", json!(1_000_000_000)),
        ("attn_norm_num_groups", json!(0)),
    ] {
        let folder = fourier_folder();
        let path = folder.path().join("unet/config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["add_attention"] = json!(true);
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        let error = UNet2DModel::load(&ModelFiles::open(folder.path()).unwrap(), ON_CPU).err().unwrap().to_string();
        assert!(error.contains(key) || error.contains("SkipDownBlock2D"), "{key} in {error}");
    }
}
