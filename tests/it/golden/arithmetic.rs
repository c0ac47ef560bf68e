//! Noise, tokens and schedulers, none of which needs a network.

use std::{fs, path::Path};

use easel::{
    diffusion::{
        ClipTokenizer, NoiseGenerator,
        schedulers::{Call, Combination, HISTORY, Limit, Plan, PlanOrder, SchedulerConfig, plan},
    },
    domain::{NoiseSource, SchedulerName},
};
use serde_json::Value;

use super::{golden, numbers, read_json};

/// Draws what the cases draw, and holds each number to theirs.
fn assert_noise(cases: &str, source: NoiseSource, tolerance: f64) {
    for case in read_json("noise.json")[cases].as_array().unwrap() {
        let mut generator = NoiseGenerator::new(source, case["seed"].as_u64().unwrap());
        for draw in case["draws"].as_array().unwrap() {
            let expected = numbers(draw);
            let values = generator.randn(expected.len());
            for (value, expected) in values.iter().zip(expected) {
                assert!((f64::from(*value) - expected).abs() < tolerance, "seed {}: {value} and {expected}", case["seed"]);
            }
        }
    }
}

#[test]
fn noise_is_that_of_torch() {
    // PyTorch's vectorised logarithm and sine differ from ours in the last bits.
    assert_noise("cases", NoiseSource::Cpu, 2e-6);
}

#[test]
fn philox_noise_is_that_of_a1111() {
    // One unit in the last place of the largest normal numbers: C libraries need not round a logarithm alike.
    assert_noise("philox", NoiseSource::Philox, 5e-7);
}

#[test]
fn prompts_become_the_tokens_of_transformers() {
    let tokenizer = ClipTokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/tokenizer")).unwrap();
    assert_tokens(&tokenizer, "tokens.json");
}

#[test]
fn berts_prompts_become_the_tokens_of_transformers_from_either_kind_of_file() {
    assert_tokens(&ClipTokenizer::load_bert(&golden("tiny-ldm/tokenizer")).unwrap(), "bert-tokens.json");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(golden("bert-tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert_tokens(&ClipTokenizer::load_bert(folder.path()).unwrap(), "bert-tokens.json");
    fs::write(folder.path().join("vocab.txt"), "[PAD]\n[UNK]\na\n").unwrap();
    let error = ClipTokenizer::load_bert(folder.path()).unwrap_err().to_string();
    assert!(error.contains("vocab.txt") && error.contains("[CLS]"), "{error}");
}

fn assert_tokens(tokenizer: &ClipTokenizer, file: &str) {
    for case in read_json(file)["cases"].as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        let tokens = tokenizer.encode(prompt).unwrap();
        let expected: Vec<i64> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokens.ids, expected, "{prompt:?}");
        assert_eq!(tokens.truncated.as_deref(), case["removed"].as_str(), "{prompt:?}");
    }
}

#[test]
fn schedulers_do_what_those_of_diffusers_do() {
    let golden = read_json("schedulers.json");
    let (first, noise) = (numbers(&golden["first"]), numbers(&golden["noise"]));
    for case in golden["cases"].as_array().unwrap() {
        let mut case = case.clone();
        case["config"] = golden["configs"][case["config"].as_u64().unwrap() as usize].clone();
        let case = &case;
        let plan = plan_of(case);
        let mut sample: Vec<f64> = match case["strength"].is_null() {
            true => first.iter().map(|x| x * plan.init_noise_sigma).collect(),
            false => {
                let start = plan.calls[0].start;
                first.iter().zip(&noise).map(|(x, noise)| start.signal * x + start.noise * noise).collect()
            }
        };
        assert_close(plan.init_noise_sigma, case["init_noise_sigma"].as_f64().unwrap(), case, "init_noise_sigma");
        let timesteps = numbers(&case["timesteps"]);
        assert_eq!(plan.calls.len(), timesteps.len(), "UNet calls of {}", short(case));
        for (call, timestep) in plan.calls.iter().zip(timesteps) {
            assert_close(call.timestep, timestep, case, "timestep");
        }
        let samples = run(&plan, &mut sample);
        let expected = case["samples"].as_object().unwrap();
        for (calls, expected) in expected {
            for (got, expected) in samples[calls.parse::<usize>().unwrap() - 1].iter().zip(numbers(expected)) {
                assert_close(*got, expected, case, "sample");
            }
        }
        assert_eq!(plan.progress(plan.calls.len()), (effective_steps(case), effective_steps(case)), "{}", short(case));
    }
}

/// 1e-9 of the value, or 1e-9: the goldens are diffusers' arithmetic in float64.
fn assert_close(got: f64, expected: f64, case: &Value, what: &str) {
    let allowed = 1e-9 * expected.abs().max(1.0);
    assert!((got - expected).abs() <= allowed, "{what}: {got} and {expected} in {}", short(case));
}

fn short(case: &Value) -> String {
    format!(
        "{} {} steps, eta {}, strength {}, config {}",
        case["scheduler"], case["num_inference_steps"], case["eta"], case["strength"], case["config"]
    )
}

fn effective_steps(case: &Value) -> u32 {
    let steps = case["num_inference_steps"].as_u64().unwrap() as u32;
    case["strength"].as_f64().map_or(steps, |strength| (strength * f64::from(steps)).floor() as u32)
}

fn plan_of(case: &Value) -> Plan {
    let config: SchedulerConfig = serde_json::from_value(without_nulls(&case["config"])).unwrap();
    let name = SchedulerName::parse(case["scheduler"].as_str().unwrap()).unwrap();
    let steps = case["num_inference_steps"].as_u64().unwrap() as usize;
    plan(&config, PlanOrder { name, steps, begin: steps - effective_steps(case) as usize, eta: case["eta"].as_f64() })
}

fn without_nulls(config: &Value) -> Value {
    config.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// Runs a plan on the goldens' fake model, `model_output = input · t / (t + 1)`, with their fake noise.
fn run(plan: &Plan, sample: &mut Vec<f64>) -> Vec<Vec<f64>> {
    let mut history: Vec<Vec<f64>> = Vec::new();
    let mut draws = 0;
    let mut samples = Vec::new();
    for call in &plan.calls {
        let output: Vec<f64> = sample.iter().map(|x| x * call.input_scale * call.timestep / (call.timestep + 1.0)).collect();
        let predictions =
            sample.iter().zip(&output).map(|(x, m)| call.predict.sample * x + call.predict.model_output * m).collect::<Vec<f64>>();
        let predictions = limited(&predictions, plan.limit);
        let noise = if call.draws_noise() { fake_noise(&mut draws, sample.len()) } else { vec![0.0; sample.len()] };
        let combined = |combination: &Combination| -> Vec<f64> {
            (0..sample.len())
                .map(|index| {
                    let past = (0..HISTORY).map(|back| combination.history[back] * history.get(back).map_or(0.0, |x| x[index]));
                    combination.sample * sample[index]
                        + combination.model_output * output[index]
                        + combination.pred_original_sample * predictions[index]
                        + combination.noise * noise[index]
                        + past.sum::<f64>()
                })
                .collect()
        };
        let (next, record) = (combined(&call.combine), call.record.as_ref().map(combined));
        remember(&mut history, call, record);
        *sample = next;
        samples.push(sample.clone());
    }
    samples
}

fn remember(history: &mut Vec<Vec<f64>>, call: &Call, record: Option<Vec<f64>>) {
    history.drain(..call.forget);
    history.splice(0..0, record);
    history.truncate(HISTORY);
}

/// The noise that the goldens hand to the reference: the same numbers in the same order.
fn fake_noise(draws: &mut u32, count: usize) -> Vec<f64> {
    *draws += 1;
    (0..count).map(|place| f64::from((*draws * 7 + place as u32 * 5) % 11) * 0.3 - 1.5).collect()
}

fn limited(values: &[f64], limit: Limit) -> Vec<f64> {
    match limit {
        Limit::None => values.to_vec(),
        Limit::Clip { range } => values.iter().map(|x| x.clamp(-range, range)).collect(),
        Limit::Threshold { ratio, max } => {
            let mut sizes: Vec<f64> = values.iter().map(|x| x.abs()).collect();
            sizes.sort_by(f64::total_cmp);
            let place = ratio * (sizes.len() - 1) as f64;
            let (below, above) = (sizes[place.floor() as usize], sizes[place.ceil() as usize]);
            let threshold = (below + (above - below) * place.fract()).clamp(1.0, max);
            values.iter().map(|x| x.clamp(-threshold, threshold) / threshold).collect()
        }
    }
}
