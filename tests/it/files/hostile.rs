//! Files that are broken or mean harm: an error that names the tensor, and no panic or large allocation.

use std::fs;

use easel::diffusion::{FileSettings, inspect};
use serde_json::{Value, json};

use super::{metadata, refusal, rewrite, single_file, write};

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
    write(&file, "{\"a\\u001b]0;b\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}", 4);
    assert!(inspect(&file).unwrap_err().to_string().contains("has control characters in its name"));
    for (bytes, problem) in [
        (&b""[..], "not a safetensors file"),
        (b"abc", "not a safetensors file"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "this is a GGUF file"),
        (b"\x80\x02}q\0.", "runs whatever code is in it"),
        (b"PK\x03\x04\0\0\0\0\0\0", "runs whatever code is in it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page"),
    ] {
        fs::write(&file, bytes).unwrap();
        let error = inspect(&file).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
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
