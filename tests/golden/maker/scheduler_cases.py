"""The scheduler configs and steps that `schedulers.json` covers."""

import json

MULTISTEP = ["dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "dpmpp_3m_sde"]
SIGMAS = [
    "lms", "euler", "euler_ancestral", "heun", "dpm2", "dpm2_ancestral", *MULTISTEP, "dpmpp_2s_ancestral", "dpmpp_sde", "deis",
    "unipc", "ipndm",
]
SCHEDULERS = ["ddim", "ddpm", "pndm", *SIGMAS, "lcm", "tcd"]
# For every scheduler: what a model's scheduler_config.json may say (None removes the key).
VARIANTS = [
    {"timestep_spacing": None, "steps_offset": None},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
    {"timestep_spacing": "leading", "steps_offset": 0},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
    {"beta_start": None, "beta_end": None, "beta_schedule": None},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"num_train_timesteps": 500},
    {"num_train_timesteps": 20, "trained_betas": [0.002 * (i + 1) for i in range(20)], "original_inference_steps": 10},
]
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.5}
# What a class alone knows; the number of steps is 5 but where it says otherwise.
OWN = {
    "ddim": [
        {"set_alpha_to_one": True},
        {"set_alpha_to_one": None},
        {"clip_sample": None},
        {"clip_sample": True, "clip_sample_range": 0.5, "prediction_type": "v_prediction"},
        {"thresholding": True},
        THRESHOLD,
    ],
    "ddpm": [{"variance_type": "fixed_large"}, {"variance_type": "fixed_small_log"}, {"clip_sample": None}, THRESHOLD],
    "pndm": [
        {"skip_prk_steps": True},
        {"skip_prk_steps": True, "timestep_spacing": "linspace"},
        {"skip_prk_steps": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        {"skip_prk_steps": True, "set_alpha_to_one": True},
    ],
    "euler": [{"rescale_betas_zero_snr": True}, {"final_sigmas_type": "sigma_min"}],
    "heun": [{"clip_sample": True}],
    "dpmpp_2m": [
        {"final_sigmas_type": "sigma_min"},
        {"euler_at_final": True},
        {"solver_type": "heun"},
        {"solver_order": 1},
        {"lambda_min_clipped": -2.0},
        THRESHOLD,
        {"timestep_spacing": "linspace", "lower_order_final": False, "final_sigmas_type": "sigma_min"},
    ],
    "dpmpp_3m": [{"lower_order_final": False, "final_sigmas_type": "sigma_min"}],
    "dpmpp_2m_sde": [{"solver_type": "heun"}, {"final_sigmas_type": "sigma_min"}],
    "dpmpp_3m_sde": [{"lower_order_final": False, "final_sigmas_type": "sigma_min"}],
    "deis": [{"solver_order": 1}, {"solver_order": 3}, {"solver_order": 3, "lower_order_final": False}, THRESHOLD],
    "unipc": [
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"disable_corrector": [0, 2]},
        {"predict_x0": False, "final_sigmas_type": "sigma_min"},
        {"predict_x0": False, "final_sigmas_type": "sigma_min", "prediction_type": "v_prediction"},
        THRESHOLD,
    ],
    "lcm": [{"original_inference_steps": 20}, {"timestep_scaling": 1.0}, {"clip_sample": True}, THRESHOLD],
    "tcd": [{"original_inference_steps": 20}, {"clip_sample": True}],
}
ETAS = {"ddim": [0.4, 1.0], "tcd": [0.0, 0.6, 1.0]} | {
    name: [0.0, 0.5] for name in ["euler_ancestral", "dpm2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde"]
}


def cases(demo):
    """Every case: the demo model's own config with several numbers of steps, the others with one."""
    own = json.loads((demo / "scheduler" / "scheduler_config.json").read_text())
    own = {key: value for key, value in own.items() if not key.startswith("_")}
    found = []
    for scheduler in SCHEDULERS:
        found += plain_cases(scheduler, own)
        found += [case(scheduler, changed(own, variant), 5) for variant in VARIANTS if allowed(scheduler, variant)]
        found += [case(scheduler, changed(own, variant), steps) for variant in OWN.get(scheduler, []) for steps in (5, 17)]
        found += [case(scheduler, own, 5, eta=eta) for eta in ETAS.get(scheduler, [])]
    for scheduler in SIGMAS:
        found += sigma_cases(scheduler, own)
    found += [case(f"{scheduler}_sgm_uniform", own, 5) for scheduler in ["ddim", "ddpm", *SIGMAS]]
    return found


def plain_cases(scheduler, own):
    if scheduler != "pndm":
        return [case(scheduler, own, steps) for steps in (1, 2, 5, 20)] + [case(scheduler, own, 14, strength=0.5)]
    # Runge-Kutta steps need four timesteps, and img2img goes without them.
    skipping = own | {"skip_prk_steps": True}
    multistep = [case(scheduler, skipping, steps) for steps in (1, 2, 5, 20)]
    multistep += [case(scheduler, skipping, 14, strength=strength) for strength in (0.5, 0.95, 0.1)]
    return [case(scheduler, own, steps) for steps in (4, 5, 20)] + multistep


def allowed(scheduler, variant):
    """PNDM does not take the finished sample's prediction in diffusers."""
    return scheduler != "pndm" or variant.get("prediction_type") != "sample"


def sigma_cases(scheduler, own):
    found = []
    for sigmas in ("karras", "exponential", "beta"):
        name = f"{scheduler}_{sigmas}"
        found += [case(name, own, steps) for steps in (1, 5, 20)]
        found += [case(name, own, 14, strength=0.5)]
        found += [case(name, changed(own, {"timestep_spacing": None, "prediction_type": "v_prediction"}), 5)]
    found += [case(f"{scheduler}_karras", changed(own, {"final_sigmas_type": "sigma_min"}), 5)]
    # A key that the config has carries over where the class knows it.
    found += [case(scheduler, own | {"use_karras_sigmas": True}, 5), case(scheduler, own | {"use_beta_sigmas": True}, 5)]
    return found


def case(scheduler, config, steps, **more):
    return {"scheduler": scheduler, "num_inference_steps": steps, **more, "config": config}


def changed(config, variant):
    merged = config | variant
    return {key: value for key, value in merged.items() if value is not None or key not in variant}
