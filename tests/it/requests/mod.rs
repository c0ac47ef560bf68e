//! What a request may say, and what is answered when it says something else.

mod infotext;
mod masks;
mod refiners;
mod schedulers;

use std::collections::BTreeMap;

use easel::domain::{
    Encoding, FieldError, MAX_SEED, ModelInfo, PictureFormat, SchedulerAlgorithm, SchedulerLimit, SchedulerName, Submission, Task,
};
use proptest::{collection, prelude::*};
use serde_json::{Map, Value, json};

use crate::support::model_info;

const RANDOM_SEED: u64 = 1234;

pub(crate) fn models() -> Vec<ModelInfo> {
    vec![model_info("demo"), ModelInfo { max_size: 256, ..model_info("small") }]
}

pub(crate) fn parse(body: Value) -> Result<Submission, Vec<FieldError>> {
    Submission::parse(body, &models(), RANDOM_SEED)
}

/// The detail of the only error, which is at `pointer`.
pub(crate) fn only_error(body: Value, pointer: &str) -> String {
    let errors = parse(body).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].pointer, pointer, "{errors:?}");
    errors[0].detail.clone()
}

#[test]
fn a_prompt_is_enough_and_the_rest_is_the_models_own() {
    let Submission { request, inputs, warnings } = parse(json!({"prompt": "a red house"})).unwrap();
    assert_eq!((request.model.as_str(), request.prompt.as_str()), ("demo", "a red house"));
    assert_eq!((request.width, request.height, request.num_inference_steps, request.num_images), (128, 128, 25, 1));
    assert_eq!((request.guidance_scale, request.scheduler.as_str(), request.seed), (5.0, "ddim", RANDOM_SEED));
    assert_eq!((request.negative_prompt, request.preview_every, request.img2img), (None, 1, None));
    assert!(inputs.iter().next().is_none() && warnings.is_empty() && request.metadata.is_empty());
}

#[test]
fn a_whole_number_may_be_written_as_a_float() {
    let body = json!({"prompt": "a", "width": 64.0, "seed": 4881.0, "num_inference_steps": 2e1, "num_images": 1.0});
    let request = parse(body).unwrap().request;
    assert_eq!((request.width, request.seed, request.num_inference_steps, request.num_images), (64, 4881, 20, 1));
    assert!(only_error(json!({"prompt": "a", "seed": 9_007_199_254_740_992.0}), "/seed").starts_with("must be a whole number"));
}

#[test]
fn a_missing_prompt_is_named() {
    assert_eq!(only_error(json!({"seed": 1}), "/prompt"), "is required");
}

#[test]
fn a_body_that_is_no_object_is_an_error_of_the_whole() {
    for body in [json!(null), json!([1]), json!("a red house"), json!(3)] {
        assert!(only_error(body, "").starts_with("must be an object, got "));
    }
}

#[test]
fn every_bad_field_is_reported_at_once() {
    let body = json!({
        "prompt": 5, "negative_prompt": [], "prompt_syntax": "a1111", "clip_skip": 0, "model": "none", "width": 127, "height": "128", "num_inference_steps": 0,
        "guidance_scale": -1, "guidance_rescale": 2, "guidance_interval": [1, 0], "cache_interval": 11, "fp8_linears": 1, "scheduler": "fast", "seed": -1, "num_images": 17, "preview_every": 1.5, "metadata": "x",
        "image": 7, "mask_image": 7, "mask_blur": 65, "image_guidance_scale": 51, "strength": 2, "output_format": "gif", "output_quality": 0, "noise_source": "gpu", "typo": 1,
    });
    let mut pointers: Vec<String> = parse(body.clone()).unwrap_err().into_iter().map(|error| error.pointer).collect();
    pointers.sort();
    let mut expected: Vec<String> = body.as_object().unwrap().keys().map(|name| format!("/{name}")).collect();
    expected.sort();
    assert_eq!(pointers, expected);
}

#[test]
fn guidance_is_on_between_the_ends_of_its_interval() {
    let guided = |more: Value| {
        let mut body = json!({"prompt": "a", "num_inference_steps": 10, "guidance_scale": 5});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = parse(body).unwrap().request;
        let steps = request.effective_steps();
        (0..steps).filter(|&step| request.is_guided(step, steps)).collect::<Vec<u32>>()
    };
    assert_eq!(guided(json!({})), (0..10).collect::<Vec<_>>());
    assert_eq!(guided(json!({"guidance_interval": [0.25, 0.79]})), [2, 3, 4, 5, 6]);
    assert_eq!(guided(json!({"guidance_interval": [0.5, 0.5]})), Vec::<u32>::new());
    assert_eq!(guided(json!({"guidance_scale": 1, "guidance_interval": [0, 0.5]})), Vec::<u32>::new());
}

#[test]
fn an_interval_that_is_none_is_refused() {
    for bad in [json!(0.5), json!([0.1]), json!([0, 0.5, 1]), json!(["0", 1]), json!({"start": 0})] {
        let detail = only_error(json!({"prompt": "a", "guidance_interval": bad}), "/guidance_interval");
        assert!(detail.starts_with("must be [start, end], two fractions"), "{detail}");
    }
    for bad in [json!([0.6, 0.5]), json!([-0.1, 1]), json!([0, 1.5])] {
        assert!(only_error(json!({"prompt": "a", "guidance_interval": bad}), "/guidance_interval").starts_with("must rise"));
    }
}

#[test]
fn fields_of_guidance_that_is_off_are_remarked_on() {
    let body = json!({"prompt": "a", "guidance_scale": 1, "guidance_rescale": 0.7, "guidance_interval": [0, 0.5]});
    let warnings = parse(body).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(warnings[0], "guidance_rescale has no effect: guidance is off at a guidance_scale of 1");
}

#[test]
fn an_unknown_field_is_refused_with_the_known_ones() {
    let detail = only_error(json!({"prompt": "a", "steps": 20}), "/steps");
    assert!(detail.contains("unknown field") && detail.contains("num_inference_steps"), "{detail}");
}

#[test]
fn an_unknown_field_with_a_slash_has_an_escaped_pointer() {
    only_error(json!({"prompt": "a", "a/b~c": 20}), "/a~1b~0c");
}

#[test]
fn a_thousand_unknown_fields_make_a_short_answer() {
    let mut body: Map<String, Value> = (0..1_000).map(|number| (format!("field {number}"), json!(0))).collect();
    body.insert("prompt".to_owned(), json!("a"));
    let errors = parse(Value::Object(body)).unwrap_err();
    assert_eq!(errors.len(), 21);
    assert!(errors[20].detail.contains("1000 unknown fields"), "{:?}", errors[20]);
}

#[test]
fn a_size_off_the_grid_or_out_of_range_is_refused_with_what_is_allowed() {
    for size in [json!(127), json!(0), json!(56), json!(2056), json!(-64), json!(128.5), json!("128"), json!(null), json!(1e300)] {
        let detail = only_error(json!({"prompt": "a", "width": size}), "/width");
        assert!(detail.starts_with("must be a multiple of 8 from 64 to 2048, got "), "{detail}");
    }
}

#[test]
fn a_size_is_checked_against_the_model_that_is_named() {
    let detail = only_error(json!({"prompt": "a", "model": "small", "height": 264}), "/height");
    assert_eq!(detail, "must be a multiple of 8 from 64 to 256, got 264");
}

#[test]
fn no_steps_and_ten_thousand_steps_are_refused() {
    for steps in [0, 10_000] {
        let detail = only_error(json!({"prompt": "a", "num_inference_steps": steps}), "/num_inference_steps");
        assert_eq!(detail, format!("must be a whole number from 1 to 150, got {steps}"));
    }
}

#[test]
fn a_number_in_quotes_is_no_number() {
    let detail = only_error(json!({"prompt": "a", "guidance_scale": "7.5"}), "/guidance_scale");
    assert_eq!(detail, "must be a number from 0 to 50, got \"7.5\"");
}

#[test]
fn a_prompt_is_measured_in_characters() {
    assert!(parse(json!({"prompt": "é".repeat(10_000)})).is_ok());
    assert!(only_error(json!({"prompt": "é".repeat(10_001)}), "/prompt").contains("at most 10000 characters, got 10001"));
}

#[test]
fn a_nul_in_a_text_is_refused() {
    for (pointer, body) in [
        ("/prompt", json!({"prompt": "a\0b"})),
        ("/negative_prompt", json!({"prompt": "a", "negative_prompt": "\0"})),
        ("/metadata", json!({"prompt": "a", "metadata": {"k": "\0"}})),
    ] {
        assert!(only_error(body, pointer).contains("U+0000"));
    }
}

#[test]
fn an_empty_negative_prompt_is_not_a_missing_one() {
    assert_eq!(parse(json!({"prompt": "a", "negative_prompt": ""})).unwrap().request.negative_prompt.as_deref(), Some(""));
    assert_eq!(parse(json!({"prompt": "a", "negative_prompt": null})).unwrap().request.negative_prompt, None);
}

#[test]
fn every_picture_of_a_request_has_a_legal_seed() {
    let body = |seed: u64, num_images: u32| json!({"prompt": "a", "seed": seed, "num_images": num_images});
    assert_eq!(parse(body(MAX_SEED, 1)).unwrap().request.image_seed(0), MAX_SEED);
    assert_eq!(parse(body(MAX_SEED - 3, 4)).unwrap().request.image_seed(3), MAX_SEED);
    assert!(only_error(body(MAX_SEED - 2, 4), "/seed").contains(&(MAX_SEED - 3).to_string()));
    only_error(body(MAX_SEED + 1, 1), "/seed");
}

#[test]
fn metadata_are_a_few_short_strings() {
    let metadata = |entries: usize| (0..entries).map(|key| (key.to_string(), json!("x"))).collect::<Map<_, _>>();
    let request = parse(json!({"prompt": "a", "metadata": metadata(16)})).unwrap().request;
    assert_eq!(request.metadata.len(), 16);
    for bad in [Value::Object(metadata(17)), json!({"a": 1}), json!({"a": "x".repeat(1_001)}), json!([])] {
        assert!(only_error(json!({"prompt": "a", "metadata": bad}), "/metadata").contains("at most 16 strings"));
    }
}

/// A picture of one pixel.
fn pixel() -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(easel::domain::encode_png(&image::RgbImage::new(1, 1), None).unwrap())
}

#[test]
fn strength_without_an_image_is_a_warning() {
    let submission = parse(json!({"prompt": "a", "strength": 0.5})).unwrap();
    assert_eq!((submission.request.img2img, submission.warnings.len()), (None, 1));
}

#[test]
fn pictures_are_written_as_png_unless_another_format_is_named() {
    let output = |body: Value| parse(body).unwrap().request.output;
    assert_eq!(output(json!({"prompt": "a"})), Encoding { format: PictureFormat::Png, quality: 90 });
    for (name, format) in [("png", PictureFormat::Png), ("jpeg", PictureFormat::Jpeg), ("webp", PictureFormat::WebP)] {
        assert_eq!(output(json!({"prompt": "a", "output_format": name})), Encoding { format, quality: 90 });
    }
    assert_eq!(output(json!({"prompt": "a", "output_format": "webp", "output_quality": 100})).quality, 100);
}

#[test]
fn a_format_or_quality_that_does_not_exist_is_answered_with_those_that_do() {
    for format in [json!("JPEG"), json!("jpg"), json!("image/png"), json!(null), json!(1)] {
        assert!(only_error(json!({"prompt": "a", "output_format": format}), "/output_format").contains("png, jpeg, webp; got "));
    }
    for quality in [json!(0), json!(101), json!(90.5), json!("90"), json!(null)] {
        let detail = only_error(json!({"prompt": "a", "output_format": "jpeg", "output_quality": quality}), "/output_quality");
        assert!(detail.starts_with("must be a whole number from 1 to 100, got "), "{detail}");
    }
}

#[test]
fn a_quality_that_png_does_not_have_is_a_warning() {
    let warnings = |body: Value| parse(body).unwrap().warnings;
    assert_eq!(
        warnings(json!({"prompt": "a", "output_quality": 50})),
        ["output_quality has no effect on PNG, which loses nothing"]
    );
    assert!(warnings(json!({"prompt": "a", "output_quality": 50, "output_format": "jpeg"})).is_empty());
}

#[test]
fn a_request_reads_back_from_its_own_json() {
    let body = json!({"prompt": "a", "guidance_scale": 1.1, "metadata": {"a": "b"}, "output_format": "webp", "output_quality": 7});
    let request = parse(body).unwrap().request;
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<easel::domain::GenerationRequest>(&text).unwrap(), request);
}

/// Any JSON of a few levels.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[A-Za-z0-9+/]{0,64}={0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            collection::btree_map(".{0,8}", inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An object whose keys are mostly the fields of a request.
fn any_body() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "prompt",
        "negative_prompt",
        "model",
        "width",
        "height",
        "num_inference_steps",
        "guidance_scale",
        "scheduler",
        "seed",
        "noise_source",
        "num_images",
        "image",
        "strength",
        "preview_every",
        "output_format",
        "output_quality",
        "metadata",
        "other",
    ]);
    let value = prop_oneof![any_json(), (0_u64..200).prop_map(Value::from), (0.0..2.0_f64).prop_map(Value::from)];
    collection::btree_map(names.prop_map(str::to_owned), value, 0..15).prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #[test]
    fn no_json_makes_the_parser_panic(body in prop_oneof![any_json(), any_body()]) {
        match parse(body) {
            Ok(Submission { request, .. }) => {
                prop_assert!(request.width % 8 == 0 && (64..=2048).contains(&request.width));
                prop_assert!((1..=150).contains(&request.num_inference_steps) && request.effective_steps() >= 1);
                prop_assert!((0.0..=50.0).contains(&request.guidance_scale));
                prop_assert!(request.image_seed(request.num_images - 1) <= MAX_SEED);
            }
            Err(errors) => prop_assert!(!errors.is_empty() && errors.iter().all(|error| !error.detail.is_empty())),
        }
    }
}
