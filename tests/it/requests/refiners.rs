//! What a refiner has a say in.

use super::*;

/// A model that two refiners can go on with: one of few sizes, and one of few schedulers.
fn models_with_refiners() -> Vec<ModelInfo> {
    let limit = |algorithm, max_steps| SchedulerLimit { algorithm, max_steps, reason: "it is so".to_owned() };
    let scheduler_limits = vec![limit(SchedulerAlgorithm::Lcm, 10), limit(SchedulerAlgorithm::Ddpm, 0)];
    vec![
        ModelInfo { refiners: ["few sizes", "few schedulers", "huge"].map(str::to_owned).into(), ..model_info("base") },
        ModelInfo { size_multiple: 12, min_size: 96, max_size: 120, ..model_info("few sizes") },
        ModelInfo { scheduler_limits, ..model_info("few schedulers") },
        ModelInfo { min_size: 4096, max_size: 8192, ..model_info("huge") },
    ]
}

#[test]
fn a_refiner_has_a_say_in_the_size() {
    let models = models_with_refiners();
    let parse = |more: Value| {
        let mut body = json!({"prompt": "a", "refiner": "few sizes"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Submission::parse(body, &models, 0)
    };
    let request = parse(json!({"height": 96})).unwrap().request;
    assert_eq!((request.width, request.height), (120, 96), "the model's own 128, as near as both can");
    let errors = parse(json!({"width": 128, "height": 104})).unwrap_err();
    let details: Vec<&str> = errors.iter().map(|error| error.detail.as_str()).collect();
    let must = "must be a multiple of 24 from 96 to 120 with the refiner few sizes";
    assert_eq!(details, [format!("{must}, got 128"), format!("{must}, got 104")]);
    let errors = parse(json!({"refiner": "huge"})).unwrap_err();
    assert_eq!((&*errors[0].pointer, &*errors[0].detail), ("/refiner", "has no size in common with the model base"));
}

#[test]
fn a_scheduler_must_serve_the_refiner_too() {
    let models = models_with_refiners();
    let error = |scheduler: &str| {
        let body = json!({"prompt": "a", "refiner": "few schedulers", "scheduler": scheduler, "num_inference_steps": 25});
        let [error] = &Submission::parse(body, &models, 0).unwrap_err()[..] else { panic!("one error") };
        (error.pointer.clone(), error.detail.clone())
    };
    let (pointer, detail) = error("lcm");
    assert_eq!(
        (&*pointer, &*detail),
        ("/num_inference_steps", "must be at most 10 with lcm and the refiner few schedulers: it is so; got 25")
    );
    let (pointer, detail) = error("ddpm");
    assert_eq!((&*pointer, &*detail), ("/scheduler", "ddpm cannot be used with the refiner few schedulers: it is so"));
}
