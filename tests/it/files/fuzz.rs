//! Bytes, headers and configs at random: read or refused, and never a crash or a large allocation.

use std::{fs, path::Path, sync::LazyLock};

use easel::diffusion::{FileSettings, inspect};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{load, model, single_file, write};
use crate::golden::{copy_folder, edit_json};

/// How many cases are tried; `PROPTEST_CASES=10000` tries more of each.
fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What a header may say of a tensor that is there or not.
fn entry() -> impl Strategy<Value = Value> {
    let number = || select(vec![0, 1, 2, 3, 4, 8, 16, 77, 320, 1 << 31, 1 << 40, 1 << 63, u64::MAX]);
    let dtype = select(vec!["F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F4", "F31", ""]);
    (dtype, vec(number(), 0..6), number(), number())
        .prop_map(|(dtype, shape, from, to)| json!({"dtype": dtype, "shape": shape, "data_offsets": [from, to]}))
}

const KEYS: [&str; 12] = [
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.input_blocks.1.0.in_layers.0.weight",
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    "model.diffusion_model.output_blocks.18446744073709551615.0.in_layers.0.weight",
    "model.diffusion_model.label_emb.0.0.weight",
    "first_stage_model.decoder.up.99999999.block.0.conv1.weight",
    "first_stage_model.encoder.mid.attn_1.q.weight",
    "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
    "cond_stage_model.model.text_projection",
    "conditioner.embedders.1.model.text_projection",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "global_step",
];

/// A prompt's worth of bytes that are a checkpoint but for their sizes.
fn small_checkpoint() -> Vec<u8> {
    let header = json!({
        "__metadata__": {"easel.configs": "{\"unet/config.json\":{\"in_channels\":4}}"},
        "model.diffusion_model.input_blocks.0.0.weight": {"dtype": "F16", "shape": [4, 2, 1, 1], "data_offsets": [0, 16]},
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": {"dtype": "F16", "shape": [6, 2], "data_offsets": [16, 40]},
        "first_stage_model.encoder.mid.attn_1.q.weight": {"dtype": "F32", "shape": [1, 1, 1, 1], "data_offsets": [40, 44]},
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight":
            {"dtype": "F16", "shape": [2, 2], "data_offsets": [44, 52]},
    });
    let header = header.to_string();
    [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), &[0; 52]].concat()
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_mutated_file_is_read_or_refused_but_never_a_crash(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("x.safetensors");
        let mut bytes = small_checkpoint();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&file, &bytes).unwrap();
        // An error or an answer; both are fine.
        let _ = inspect(&file);
        prop_assert!(load(&file, FileSettings::default()).is_err());
    }

    #[test]
    fn a_header_may_say_what_it_likes(entries in vec((select(KEYS.to_vec()), entry()), 0..8), data in 0_usize..200) {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("x.safetensors");
        let header: serde_json::Map<String, Value> = entries.into_iter().map(|(key, entry)| (key.to_owned(), entry)).collect();
        write(&file, &Value::Object(header).to_string(), data);
        let _ = inspect(&file);
        prop_assert!(load(&file, FileSettings::default()).is_err());
    }
}

/// What a config may hold in the place of a number that makes sense.
fn nonsense() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(0),
        json!(-1),
        json!(1),
        json!(7),
        json!(16_777_216),
        json!(1_000_000_000_000_i64),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.5),
        json!(1e300),
        json!("x"),
        json!([]),
        json!([[1]]),
        json!([16_777_216, 16_777_216, 16_777_216, 16_777_216]),
        json!({}),
        json!(vec![1; 100]),
    ])
}

const UNET: &str = "unet/config.json";
const VAE: &str = "vae/config.json";
const TEXT_ENCODER: &str = "text_encoder/config.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const CONFIG_KEYS: [(&str, &str); 37] = [
    (UNET, "in_channels"),
    (UNET, "out_channels"),
    (UNET, "block_out_channels"),
    (UNET, "layers_per_block"),
    (UNET, "attention_head_dim"),
    (UNET, "transformer_layers_per_block"),
    (UNET, "reverse_transformer_layers_per_block"),
    (UNET, "cross_attention_dim"),
    (UNET, "norm_num_groups"),
    (UNET, "sample_size"),
    (UNET, "conv_in_kernel"),
    (UNET, "conv_out_kernel"),
    (UNET, "downsample_padding"),
    (UNET, "time_embedding_dim"),
    (UNET, "time_cond_proj_dim"),
    (UNET, "addition_time_embed_dim"),
    (UNET, "projection_class_embeddings_input_dim"),
    (UNET, "down_block_types"),
    (VAE, "block_out_channels"),
    (VAE, "layers_per_block"),
    (VAE, "latent_channels"),
    (VAE, "norm_num_groups"),
    (VAE, "sample_size"),
    (VAE, "scaling_factor"),
    (TEXT_ENCODER, "hidden_size"),
    (TEXT_ENCODER, "intermediate_size"),
    (TEXT_ENCODER, "num_hidden_layers"),
    (TEXT_ENCODER, "num_attention_heads"),
    (TEXT_ENCODER, "max_position_embeddings"),
    (TEXT_ENCODER, "vocab_size"),
    (TEXT_ENCODER, "projection_dim"),
    (TEXT_ENCODER, "eos_token_id"),
    (SCHEDULER, "num_train_timesteps"),
    (SCHEDULER, "steps_offset"),
    (SCHEDULER, "original_inference_steps"),
    (SCHEDULER, "beta_end"),
    ("tokenizer/tokenizer_config.json", "model_max_length"),
];

/// A single file in parts, so that its configs can be changed.
struct Pieces {
    header: Value,
    data: Vec<u8>,
}

impl Pieces {
    fn of(name: &str) -> Self {
        let (_scratch, file) = single_file(name);
        let bytes = fs::read(file).unwrap();
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        Self { header: serde_json::from_slice(header).unwrap(), data: data.to_vec() }
    }

    fn write(&self, file: &Path, change: impl FnOnce(&mut Value)) {
        let mut header = self.header.clone();
        let kept = &mut header["__metadata__"]["easel.configs"];
        let mut configs: Value = serde_json::from_str(kept.as_str().unwrap()).unwrap();
        change(&mut configs);
        *kept = configs.to_string().into();
        let header = header.to_string();
        fs::write(file, [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), &self.data].concat()).unwrap();
    }
}

/// Loads it and paints nothing: the error, if there is one, is of a length that a person reads.
fn is_loaded_or_refused(path: &Path) -> Result<(), TestCaseError> {
    if let Err(error) = load(path, FileSettings::default()) {
        prop_assert!(error.to_string().len() < 1 << 20);
    }
    Ok(())
}

static PIECES: LazyLock<[Pieces; 2]> = LazyLock::new(|| ["tiny-sd1", "tiny-sdxl"].map(Pieces::of));

proptest! {
    #![proptest_config(cases(60))]

    /// A config may ask for more than any memory: what it asks for is compared with the file, never allocated.
    #[test]
    fn a_config_that_makes_no_sense_is_refused_or_harmless(
        pieces in select(vec![0, 1]),
        changes in vec((select(CONFIG_KEYS.to_vec()), nonsense()), 1..3),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("x.safetensors");
        PIECES[pieces].write(&file, |configs| {
            for ((path, key), value) in changes {
                configs[path][key] = value;
            }
        });
        is_loaded_or_refused(&file)?;
    }
}

const FOLDER_KEYS: [(&str, &str, &str); 22] = [
    ("tiny-ldm", "bert/config.json", "d_model"),
    ("tiny-ldm", "bert/config.json", "encoder_layers"),
    ("tiny-ldm", "bert/config.json", "encoder_attention_heads"),
    ("tiny-ldm", "bert/config.json", "encoder_ffn_dim"),
    ("tiny-ldm", "bert/config.json", "head_dim"),
    ("tiny-ldm", "bert/config.json", "max_position_embeddings"),
    ("tiny-ldm", "bert/config.json", "vocab_size"),
    ("tiny-ldm", "vqvae/config.json", "block_out_channels"),
    ("tiny-ldm", "vqvae/config.json", "layers_per_block"),
    ("tiny-ldm-faces", "vqvae/config.json", "num_vq_embeddings"),
    ("tiny-ldm-faces", "vqvae/config.json", "vq_embed_dim"),
    ("tiny-ldm-faces", "vqvae/config.json", "norm_num_groups"),
    ("tiny-ddim", UNET, "block_out_channels"),
    ("tiny-ddim", UNET, "layers_per_block"),
    ("tiny-ddim", UNET, "attention_head_dim"),
    ("tiny-ddim", UNET, "norm_num_groups"),
    ("tiny-ddim", UNET, "attn_norm_num_groups"),
    ("tiny-ddim", UNET, "sample_size"),
    ("tiny-ddim", UNET, "downsample_padding"),
    ("tiny-ddim", UNET, "in_channels"),
    ("tiny-ddim", UNET, "time_embedding_dim"),
    ("tiny-ddim", UNET, "mid_block_scale_factor"),
];

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn a_folders_config_that_makes_no_sense_is_refused_or_harmless((name, path, key) in select(FOLDER_KEYS.to_vec()), value in nonsense()) {
        let scratch = tempfile::tempdir().unwrap();
        copy_folder(&model(name), scratch.path());
        edit_json(&scratch.path().join(path), |config| config[key] = value.clone());
        is_loaded_or_refused(scratch.path())?;
    }
}
