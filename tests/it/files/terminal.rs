//! `easel inspect` and `easel convert`.

use std::{fs, process::Stdio};

use serde_json::Value;

use super::{model, single_file};
use crate::support::{easel, run};

#[test]
fn the_terminal_says_what_a_model_is() {
    let (scratch, file) = single_file("tiny-sd2");
    let human = run(easel(scratch.path()).arg("inspect").arg(&file));
    let text = String::from_utf8(human.stdout).unwrap();
    assert!(human.status.success());
    for part in ["Stable Diffusion 2 (StableDiffusionPipeline)", "prediction type  v_prediction", "unet ", "F32"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = run(easel(scratch.path()).args(["inspect", "--json"]).arg(model("tiny-sd2")));
    let found: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&found["family"], &found["layout"], &found["is_adapter"]), (&"sd2".into(), &"folder".into(), &false.into()));
}

#[test]
fn a_reader_that_has_heard_enough_is_no_failure() {
    let scratch = tempfile::tempdir().unwrap();
    let mut inspect = easel(scratch.path());
    inspect.args(["inspect", "--json"]).arg(model("tiny-sd2")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut inspecting = inspect.spawn().unwrap();
    drop(inspecting.stdout.take());
    let output = inspecting.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn the_terminal_converts_and_refuses_to_overwrite() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("half.safetensors");
    let convert = || run(easel(scratch.path()).arg("convert").arg(model("tiny-sd2")).arg(&target).args(["--dtype", "float16"]));
    let first = convert();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let bytes = fs::read(&target).unwrap();
    let second = convert();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is there already; nothing is overwritten"));
    assert!(fs::read(&target).unwrap() == bytes);
    let broken = scratch.path().join("broken.safetensors");
    fs::write(&broken, &bytes[..bytes.len() - 100]).unwrap();
    let refused = run(easel(scratch.path()).arg("inspect").arg(&broken));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("truncated: the tensor "));
}
