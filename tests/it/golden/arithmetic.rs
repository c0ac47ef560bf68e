//! Noise, tokens and schedulers, none of which needs a network.

use std::{fs, path::Path};

use easel::{
    diffusion::{
        ClipTokenizer, NoiseGenerator,
        schedulers::{Limit, Plan, SchedulerConfig, plan},
    },
    domain::SchedulerName,
};
use serde_json::Value;

use super::{golden, numbers, read_json};

#[test]
fn noise_is_that_of_torch() {
    for case in read_json("noise.json")["cases"].as_array().unwrap() {
        let mut generator = NoiseGenerator::new(case["seed"].as_u64().unwrap());
        for draw in case["draws"].as_array().unwrap() {
            let expected = numbers(draw);
            let values = generator.randn(expected.len());
            // PyTorch's vectorised logarithm and sine differ from ours in the last bits.
            for (value, expected) in values.iter().zip(expected) {
                assert!((f64::from(*value) - expected).abs() < 2e-6, "seed {}: {value} and {expected}", case["seed"]);
            }
        }
    }
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
        let plan = plan_of(case);
        let mut sample: Vec<f64> = match case["strength"].is_null() {
            true => first.iter().map(|x| x * plan.init_noise_sigma).collect(),
            false => {
                let start = plan.steps[0].start;
                first.iter().zip(&noise).map(|(x, noise)| start.signal * x + start.noise * noise).collect()
            }
        };
        assert_close(plan.init_noise_sigma, case["init_noise_sigma"].as_f64().unwrap(), case, "init_noise_sigma");
        for (step, timestep) in plan.steps.iter().zip(numbers(&case["timesteps"])) {
            assert_close(step.timestep, timestep, case, "timestep");
        }
        let expected = case["samples"].as_array().unwrap();
        assert_eq!(plan.steps.len(), expected.len(), "{case}");
        for (got, expected) in run(&plan, &mut sample).iter().zip(expected) {
            for (got, expected) in got.iter().zip(numbers(expected)) {
                assert_close(*got, expected, case, "sample");
            }
        }
    }
}

/// 1e-9 of the value, or 1e-9: the goldens are diffusers' arithmetic in float64.
fn assert_close(got: f64, expected: f64, case: &Value, what: &str) {
    let allowed = 1e-9 * expected.abs().max(1.0);
    assert!((got - expected).abs() <= allowed, "{what}: {got} and {expected} in {}", short(case));
}

fn short(case: &Value) -> String {
    format!(
        "{} {} steps, karras {}, strength {}, config {}",
        case["scheduler"], case["num_inference_steps"], case["karras"], case["strength"], case["config"]
    )
}

fn plan_of(case: &Value) -> Plan {
    let config: SchedulerConfig = serde_json::from_value(without_nulls(&case["config"])).unwrap();
    let named = SchedulerName::parse(case["scheduler"].as_str().unwrap()).unwrap();
    let name = SchedulerName { karras: case["karras"].as_bool().unwrap(), ..named };
    let steps = case["num_inference_steps"].as_u64().unwrap() as u32;
    let run = case["strength"].as_f64().map_or(steps, |strength| (strength * f64::from(steps)).floor() as u32);
    plan(&config, name, steps, steps - run)
}

fn without_nulls(config: &Value) -> Value {
    config.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// Runs a plan on the goldens' fake model: `model_output = input · t / (t + 1)`.
fn run(plan: &Plan, sample: &mut [f64]) -> Vec<Vec<f64>> {
    let mut history = vec![0.0; sample.len()];
    let mut samples = Vec::new();
    for step in &plan.steps {
        let output: Vec<f64> = sample.iter().map(|x| x * step.input_scale * step.timestep / (step.timestep + 1.0)).collect();
        let predictions: Vec<f64> =
            sample.iter().zip(&output).map(|(x, m)| step.predict.sample * x + step.predict.model_output * m).collect();
        let predictions = limited(&predictions, plan.limit);
        for (index, x) in sample.iter_mut().enumerate() {
            *x = step.combine.sample * *x
                + step.combine.model_output * output[index]
                + step.combine.pred_original_sample * predictions[index]
                + step.combine.history[0] * history[index];
        }
        history = predictions;
        samples.push(sample.to_vec());
    }
    samples
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
