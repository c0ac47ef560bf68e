//! What a picture's own text says of its making.

use easel::domain::infotext;

use super::*;

#[test]
fn what_changes_a_picture_changes_its_text() {
    let model = ModelInfo { refiners: vec!["small".to_owned()], unsupported_fields: Vec::new(), ..model_info("demo") };
    let text = |fields: Value| {
        let mut body = json!({"prompt": "a (red:1.3) house", "seed": 7});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let served = [model.clone(), model_info("small")];
        infotext(&Submission::parse(body, &served, RANDOM_SEED).unwrap().request, 0)
    };
    let plain = text(json!({}));
    assert!(!["Prompt syntax", "Guidance", "Cache"].iter().any(|word| plain.contains(word)), "{plain}");
    for (fields, expected) in [
        (json!({"prompt_syntax": "weighted"}), ", Prompt syntax: weighted"),
        (json!({"guidance_interval": [0.2, 0.6]}), ", Guidance start: 0.2, Guidance end: 0.6"),
        (json!({"cache_interval": 3}), ", Cache interval: 3"),
        (json!({"fp8_linears": true}), ", FP8 linears: True"),
        (json!({"clip_skip": 2}), ", Clip skip: 2"),
        (json!({"original_size": [512, 768]}), ", Original size: 768x512, Crop left-top: 0x0, Target size: 128x128"),
        (json!({"negative_crops_coords_top_left": [3, 4]}), ", Negative crop left-top: 4x3"),
        (json!({"aesthetic_score": 7.5}), ", Aesthetic score: 7.5, Negative aesthetic score: 2.5"),
        (json!({"refiner": "small", "refiner_start": 0.6}), ", Refiner: small, Refiner switch at: 0.6"),
    ] {
        assert!(text(fields).contains(expected), "{expected}");
    }
}

#[test]
fn a_model_whose_name_looks_like_more_stands_in_quotes() {
    let odd = model_info("a, Seed: 1");
    let request = Submission::parse(json!({"prompt": "a", "seed": 7}), &[odd], RANDOM_SEED).unwrap().request;
    assert!(infotext(&request, 0).contains(r#"Model: "a, Seed: 1", RNG"#));
}
