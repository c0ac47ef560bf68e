//! `easel bench` through the real binary, with the smallest model of random weights.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::support::{easel, run};

/// What one row of the tiny UNet's step takes at 64 × 64, as `torch.utils.flop_counter` counts it in diffusers' module of the same config.
const STEP: f64 = 46_137_344.0;
/// Some of that is done once a prompt, and not once a step.
const AT_LEAST: f64 = 0.95;

#[test]
fn every_part_of_a_picture_is_timed_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bench.json");
    let small =
        ["--size", "64", "--rows", "1,3", "--canvases", "2", "--repeat", "2", "--matmul", "64", "--profile", "--dtype", "float32"];
    let output = run(easel(folder.path()).args(["bench", "--model", "tiny", "--json"]).arg(&file).args(small));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let model = &report["models"][0];
    assert_eq!(
        (&model["device"]["name"], &model["device"]["dtype"], &model["device"]["threads"]),
        (&json!("cpu"), &json!("float32"), &json!(1))
    );
    assert!(model["matmul"]["tflop_per_second"].as_f64() > Some(0.0) && report["peak_memory_bytes"].as_u64() > Some(1 << 20));
    assert!(report["machine"]["cpu"].is_string() && report["command"].as_str().unwrap().contains("bench --model tiny"));
    let results = model["results"].as_array().unwrap();
    let parts: Vec<_> = results.iter().map(|result| result["part"].as_str().unwrap()).collect();
    assert_eq!(parts, ["text_encoder", "unet", "unet", "vae_decode", "preview", "whole"]);
    for result in results {
        assert_eq!(result["seconds"]["all"].as_array().unwrap().len(), 2, "{result}");
        assert!(result["seconds"]["min"].as_f64() > Some(0.0) && result["profile"]["rest"].as_f64() > Some(0.0), "{result}");
        assert_eq!(result["tflop"].as_f64() > Some(0.0), result["part"] != "preview", "{result}");
    }
    let flop = |place: usize| results[place]["tflop"].as_f64().unwrap() * 1e12;
    for (place, rows) in [(1, 1.0), (2, 3.0)] {
        assert!((AT_LEAST..=1.0).contains(&(flop(place).round() / (rows * STEP))), "{} for {rows} rows", flop(place));
    }
    // Two pictures with two prompts each, which need not all be encoded anew, and two steps of two rows each.
    let (prompts, rest) = (4.0 * flop(0), 8.0 * STEP + 2.0 * flop(3));
    assert!((AT_LEAST * rest..=prompts + rest).contains(&flop(5).round()), "{} of {prompts} and {rest}", flop(5));
    assert!(said.contains("step of 3 rows, 64²") && said.contains("pictures/s") && said.contains("peak resident memory"), "{said}");
}

#[test]
fn cases_that_come_line_by_line_are_answered_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = easel(folder.path());
    command.args(["bench", "--lines", "--model", "tiny"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let (mut input, mut lines) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()).lines());
    let mut answer = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(answer()["ready"], "tiny");
    for case in [json!({"part": "unet", "rows": 2, "size": 64, "steps": 2}), json!({"part": "vae_decode", "size": 64})] {
        writeln!(input, "{case}").unwrap();
        assert!(answer()["seconds"].as_f64() > Some(0.0), "{case}");
    }
    for (wrong, named) in [
        ("{}", "part"),
        ("unet", "expected value"),
        (r#"{"part": "unet", "rows": 0}"#, "rows: must be a whole number from 1 to 256, got 0"),
        (r#"{"part": "unet", "size": 65}"#, "width: must be a multiple of 8"),
    ] {
        writeln!(input, "{wrong}").unwrap();
        let error = answer()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(named), "{wrong}: {error}");
    }
    drop(input);
    assert!(process.wait().unwrap().success());
}
