//! Files that are broken or mean harm: an error that names the tensor, and no panic or large allocation.

use std::{fs, path::Path};

use easel::diffusion::{FileSettings, inspect};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{load, metadata, refusal, rewrite, single_file};

/// A file of this header (its length first) and so many zeros behind it.
fn write(file: &Path, header: &str, data: usize) {
    let length = (header.len() as u64).to_le_bytes();
    fs::write(file, [length.as_slice(), header.as_bytes(), &vec![0; data]].concat()).unwrap();
}

#[test]
fn an_error_names_the_tensor_at_fault() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("x.safetensors");
    let one = |entry: Value| json!({"fine": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "bad": entry}).to_string();
    for (entry, data, problem) in [
        (json!({"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}), 8, "truncated: the tensor bad ends at byte"),
        (json!({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}), 12, "the tensor bad overlaps another one"),
        (json!({"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}), 24, "the tensor bad has a hole before it"),
        (
            json!({"dtype": "F32", "shape": [3], "data_offsets": [8, 16]}),
            16,
            "the tensor bad has 8 bytes, which is not what F32 [3] takes",
        ),
        (json!({"dtype": "F32", "shape": [1_u64 << 40, 1_u64 << 40], "data_offsets": [8, 16]}), 16, "the tensor bad has 8 bytes"),
        (json!({"dtype": "F32", "shape": [0, u64::MAX], "data_offsets": [8, 8]}), 8, "the tensor bad"),
        (json!({"dtype": "F32", "shape": [2], "data_offsets": [16, 8]}), 16, "the tensor bad ends before it begins"),
        (
            json!({"dtype": "F32", "shape": [2], "data_offsets": [u64::MAX - 8, u64::MAX]}),
            16,
            "the tensor bad lies beyond every file",
        ),
        (json!({"dtype": "F31", "shape": [2], "data_offsets": [8, 16]}), 16, "the tensor bad has a dtype that is not known"),
        (json!({"dtype": "F32", "shape": [-2], "data_offsets": [8, 16]}), 16, "the tensor bad: invalid value"),
        (json!({"dtype": "F32", "shape": vec![1; 1000], "data_offsets": [8, 12]}), 12, "the tensor bad has 1000 dimensions"),
        (json!("text"), 8, "the tensor bad: invalid type"),
    ] {
        write(&file, &one(entry), data);
        let error = inspect(&file).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains("x.safetensors"), "{error}");
    }
}

#[test]
fn a_header_is_bounded_before_it_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("x.safetensors");
    for (length, problem) in
        [(100_000_000_u64, "of 100000000 bytes is too long"), (u64::MAX, "is too long"), (1000, "a truncated one")]
    {
        fs::write(&file, [length.to_le_bytes().as_slice(), b"{}"].concat()).unwrap();
        let error = inspect(&file).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    write(&file, &"[".repeat(100_000), 0);
    assert!(inspect(&file).is_err());
    write(&file, &format!("{{\"a\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000)), 0);
    assert!(inspect(&file).is_err());
    write(&file, &json!({"x".repeat(5000): {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).to_string(), 4);
    assert!(inspect(&file).unwrap_err().to_string().contains("a tensor's name has 5000 bytes"));
    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    write(&file, twice, 4);
    assert!(inspect(&file).unwrap_err().to_string().contains("the tensor a is there twice"));
    for bytes in [&b""[..], b"abc", b"GGUF\x03\0\0\0\0\0\0\0", b"\x80\x02}q\0."] {
        fs::write(&file, bytes).unwrap();
        assert!(inspect(&file).unwrap_err().to_string().contains("not a safetensors file"));
    }
}

#[test]
fn tensors_of_a_wrong_shape_are_named_in_a_single_file_too() {
    let (_scratch, file) = single_file("tiny-sd2");
    let held = metadata(&file);
    rewrite(&file, Some(held), |key| match key {
        "model.diffusion_model.out.2.weight" => Some("model.diffusion_model.input_blocks.0.0.weight".to_owned()),
        "model.diffusion_model.input_blocks.0.0.weight" => Some("model.diffusion_model.out.2.weight".to_owned()),
        other => Some(other.to_owned()),
    });
    let error = refusal(&file, FileSettings::default());
    assert!(error.contains("conv_in.weight is") && error.contains("#unet"), "{error}");
}

/// What a config may hold in the place of a number that makes sense.
fn nonsense() -> impl Strategy<Value = Value> {
    select(vec![
        json!(0),
        json!(-1),
        json!(1),
        json!(7),
        json!(1_000_000_000_000_i64),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(0.5),
        json!("x"),
        json!([]),
        json!([[1]]),
        json!({}),
        json!(vec![1; 100]),
    ])
}

const CONFIG_KEYS: [(&str, &str); 24] = [
    ("unet/config.json", "in_channels"),
    ("unet/config.json", "out_channels"),
    ("unet/config.json", "block_out_channels"),
    ("unet/config.json", "layers_per_block"),
    ("unet/config.json", "attention_head_dim"),
    ("unet/config.json", "transformer_layers_per_block"),
    ("unet/config.json", "cross_attention_dim"),
    ("unet/config.json", "norm_num_groups"),
    ("unet/config.json", "sample_size"),
    ("unet/config.json", "conv_in_kernel"),
    ("unet/config.json", "time_embedding_dim"),
    ("unet/config.json", "down_block_types"),
    ("vae/config.json", "block_out_channels"),
    ("vae/config.json", "layers_per_block"),
    ("vae/config.json", "latent_channels"),
    ("vae/config.json", "norm_num_groups"),
    ("text_encoder/config.json", "hidden_size"),
    ("text_encoder/config.json", "num_hidden_layers"),
    ("text_encoder/config.json", "num_attention_heads"),
    ("text_encoder/config.json", "max_position_embeddings"),
    ("text_encoder/config.json", "vocab_size"),
    ("scheduler/scheduler_config.json", "num_train_timesteps"),
    ("scheduler/scheduler_config.json", "steps_offset"),
    ("tokenizer/tokenizer_config.json", "model_max_length"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_file_is_read_or_refused_but_never_a_crash(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("x.safetensors");
        let header = json!({
            "__metadata__": {"easel.configs": "{\"unet/config.json\":{\"in_channels\":4}}"},
            "model.diffusion_model.input_blocks.0.0.weight": {"dtype": "F16", "shape": [4, 2, 1, 1], "data_offsets": [0, 16]},
            "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": {"dtype": "F16", "shape": [6, 2], "data_offsets": [16, 40]},
            "first_stage_model.encoder.mid.attn_1.q.weight": {"dtype": "F32", "shape": [1, 1, 1, 1], "data_offsets": [40, 44]},
        });
        write(&file, &header.to_string(), 44);
        let mut bytes = fs::read(&file).unwrap();
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
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// A config may ask for more than any memory: what it asks for is compared with the file, never allocated.
    #[test]
    fn a_config_that_makes_no_sense_is_refused_or_harmless((path, key) in select(CONFIG_KEYS.to_vec()), value in nonsense()) {
        let (_scratch, file) = single_file("tiny-sd1");
        let mut held = metadata(&file);
        let mut configs: Value = serde_json::from_str(&held["easel.configs"]).unwrap();
        configs[path][key] = value;
        held.insert("easel.configs".to_owned(), configs.to_string());
        rewrite(&file, Some(held), |key| Some(key.to_owned()));
        if let Err(error) = load(&file, FileSettings::default()) {
            prop_assert!(error.to_string().len() < 1 << 20);
        }
    }
}
