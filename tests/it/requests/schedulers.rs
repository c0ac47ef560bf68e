//! Schedulers by their names, and what each may be asked.

use super::*;

#[test]
fn schedulers_are_found_by_their_other_names() {
    for (given, name) in [
        ("DDIM", "ddim"),
        ("EulerDiscreteScheduler", "euler"),
        ("k_dpmpp_2m_ka", "dpmpp_2m_karras"),
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        (" dpm++ 2m ", "dpmpp_2m"),
    ] {
        assert_eq!(parse(json!({"prompt": "a", "scheduler": given})).unwrap().request.scheduler.as_str(), name, "{given}");
    }
}

#[test]
fn every_scheduler_is_found_by_its_own_name_and_no_name_means_two() {
    let mut meanings: BTreeMap<String, SchedulerAlgorithm> = BTreeMap::new();
    for scheduler in SchedulerName::all() {
        assert_eq!(SchedulerName::parse(scheduler.as_str()), Some(scheduler));
        for name in [scheduler.algorithm.name()].iter().chain(scheduler.algorithm.aliases()) {
            let ending = scheduler.sigmas.name().map(|name| format!(" {name}")).unwrap_or_default();
            assert_eq!(SchedulerName::parse(&format!("{name}{ending}")), Some(scheduler), "{name}{ending}");
            let bare = name.to_lowercase().replace([' ', '_'], "").replace('+', "p");
            assert_eq!(*meanings.entry(bare).or_insert(scheduler.algorithm), scheduler.algorithm, "{name}");
        }
    }
    assert_eq!(SchedulerName::all().count(), 83);
}

#[test]
fn schedulers_are_found_by_the_names_that_other_servers_give_them() {
    for (given, name) in [
        ("Euler a", "euler_ancestral"),
        ("euler_a", "euler_ancestral"),
        ("k_euler_a_ka", "euler_ancestral_karras"),
        ("Euler a Karras", "euler_ancestral_karras"),
        ("DPM2 a Karras", "dpm2_ancestral_karras"),
        ("k_dpm_2_ka", "dpm2_karras"),
        ("dpm_2_a", "dpm2_ancestral"),
        ("DPM++ 2S a", "dpmpp_2s_ancestral"),
        ("dpm++2s_a", "dpmpp_2s_ancestral"),
        ("DPM++ SDE Karras", "dpmpp_sde_karras"),
        ("dpmpp_2m_sde_gpu", "dpmpp_2m_sde"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde_exponential"),
        ("DPM++ 3M SDE Exponential", "dpmpp_3m_sde_exponential"),
        ("dpmpp_2m_beta", "dpmpp_2m_beta"),
        ("Euler SGM Uniform", "euler_sgm_uniform"),
        ("ddim_trailing", "ddim_sgm_uniform"),
        ("PLMS", "pndm"),
        ("uni_pc", "unipc"),
        ("UniPCMultistepScheduler", "unipc"),
        ("LMS Karras", "lms_karras"),
        ("KDPM2AncestralDiscreteScheduler", "dpm2_ancestral"),
    ] {
        assert_eq!(SchedulerName::parse(given).map(SchedulerName::as_str), Some(name), "{given}");
    }
    for unknown in ["", "karras", "lcm_karras", "ddim_karras", "euler_euler", "DPM adaptive"] {
        assert_eq!(SchedulerName::parse(unknown), None, "{unknown}");
    }
}

#[test]
fn eta_is_a_share_and_says_so_where_it_has_no_effect() {
    let eta = |scheduler: &str, eta: Value| parse(json!({"prompt": "a", "scheduler": scheduler, "eta": eta}));
    assert_eq!(eta("ddim", json!(0.5)).unwrap().request.eta, Some(0.5));
    assert_eq!(eta("ddim", Value::Null).unwrap().request.eta, None);
    assert_eq!(eta("heun", json!(0.5)).unwrap().warnings, ["eta has no effect with heun"]);
    assert!(eta("euler_ancestral", json!(0)).unwrap().warnings.is_empty());
    for bad in [json!(1.1), json!(-0.1), json!("much")] {
        assert!(only_error(json!({"prompt": "a", "eta": bad}), "/eta").contains("from 0 to 1"));
    }
}

#[test]
fn a_scheduler_that_cannot_serve_the_model_says_why() {
    let limit = |algorithm, max_steps| SchedulerLimit { algorithm, max_steps, reason: "it is so".to_owned() };
    let scheduler_limits = vec![limit(SchedulerAlgorithm::Lcm, 50), limit(SchedulerAlgorithm::Ddpm, 0)];
    let model = ModelInfo { scheduler_limits, ..model_info("demo") };
    let parse = |body: Value| Submission::parse(body, std::slice::from_ref(&model), 0);
    let error = |scheduler: &str, steps: u32| {
        parse(json!({"prompt": "a", "scheduler": scheduler, "num_inference_steps": steps})).unwrap_err()
    };
    assert!(parse(json!({"prompt": "a", "scheduler": "lcm", "num_inference_steps": 50})).is_ok());
    let [FieldError { pointer, detail }] = &error("lcm", 51)[..] else { panic!("one error") };
    assert_eq!(
        (pointer.as_str(), detail.as_str()),
        ("/num_inference_steps", "must be at most 50 with lcm and this model: it is so; got 51")
    );
    let [FieldError { pointer, detail }] = &error("ddpm", 5)[..] else { panic!("one error") };
    assert_eq!((pointer.as_str(), detail.as_str()), ("/scheduler", "ddpm cannot be used with this model: it is so"));
}

#[test]
fn an_unknown_scheduler_or_model_is_answered_with_the_known_ones() {
    assert!(only_error(json!({"prompt": "a", "scheduler": "fast"}), "/scheduler").contains("ddim, ddpm, "));
    assert!(only_error(json!({"prompt": "a", "model": "none"}), "/model").contains("demo, small; got \"none\""));
}
