//! The half of `make parity` that Easel paints: tests/parity makes the other, and prints both.

use std::{env, fs, io::Write, path::Path};

use serde_json::{Value, json};

use super::painter::{Painter, float32_tensor, largest};

/// For every case of `$EASEL_PARITY/cases.json` a line of `errors.jsonl`: its `name`, and its latents' maximum relative `error` against those
/// of `latents.safetensors` (`null` where there is a NaN), `painted` where the reference has no latents, or the words with which Easel
/// `refused` it.
#[test]
#[ignore = "needs the folder that tests/parity makes"]
fn every_family_paints_what_diffusers_paints() {
    let folder = env::var_os("EASEL_PARITY").expect("EASEL_PARITY names the folder that tests/parity has made");
    let folder = Path::new(&folder);
    let cases: Value = serde_json::from_slice(&fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let latents = fs::read(folder.join("latents.safetensors")).unwrap();
    let mut lines = fs::File::create(folder.join("errors.jsonl")).unwrap();
    let mut loaded = None;
    for case in cases["cases"].as_array().unwrap() {
        let models = (&case["family"], &case["request"]["refiner"]);
        let painter = match loaded.take() {
            Some((same, painter)) if same == models => painter,
            _ => Painter::load(case),
        };
        let (_, painter) = loaded.insert((models, painter));
        writeln!(lines, "{}", outcome(painter, case, &latents)).unwrap();
    }
}

fn outcome(painter: &mut Painter, case: &Value, latents: &[u8]) -> Value {
    let name = case["name"].as_str().unwrap();
    match painter.paint(case) {
        Err(reason) => json!({"name": name, "refused": reason}),
        Ok(_) if !case["refused"].is_null() => json!({"name": name, "painted": true}),
        Ok(canvases) => {
            let (_, values) = canvases[0].latents().unwrap();
            json!({"name": name, "error": relative_error(&values, &float32_tensor(latents, name))})
        }
    }
}

/// max |a − b| / max |b|
fn relative_error(values: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(values.len(), expected.len());
    let apart = values.iter().zip(expected).map(|(a, b)| a - b);
    largest(apart) / largest(expected.iter().copied())
}
