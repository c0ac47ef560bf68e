"""The scheduler configs and steps that `schedulers.json` covers."""

import json

SCHEDULERS = ["ddim", "euler", "dpmpp_2m"]
SIGMAS = ["euler", "dpmpp_2m"]
# For every scheduler: what a model's scheduler_config.json may say (None removes the key).
VARIANTS = [
    {"timestep_spacing": None},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
    {"timestep_spacing": "leading", "steps_offset": 0},
    {"steps_offset": None},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
    {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"num_train_timesteps": 500},
    {"num_train_timesteps": 20, "trained_betas": [0.002 * (i + 1) for i in range(20)]},
]
DDIM_VARIANTS = [
    {"set_alpha_to_one": True},
    {"set_alpha_to_one": None},
    {"clip_sample": True},
    {"clip_sample": None},
    {"clip_sample": True, "clip_sample_range": 0.5, "prediction_type": "v_prediction"},
    {"thresholding": True},
    {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.5},
]
EULER_VARIANTS = [
    {"rescale_betas_zero_snr": True},
    {"final_sigmas_type": "sigma_min"},
]
DPMPP_VARIANTS = [
    {"final_sigmas_type": "sigma_min"},
    {"lower_order_final": False},
    {"euler_at_final": True},
    {"solver_type": "heun"},
    {"thresholding": True},
    {"timestep_spacing": "linspace", "lower_order_final": False, "final_sigmas_type": "sigma_min"},
]


def cases(demo):
    """Every case: the demo model's own config with all the steps, the others with a few."""
    own = json.loads((demo / "scheduler" / "scheduler_config.json").read_text())
    own = {key: value for key, value in own.items() if not key.startswith("_")}
    found = []
    for scheduler in SCHEDULERS:
        found += [case(scheduler, own, steps) for steps in (1, 2, 5, 14, 25, 50)]
        found += [case(scheduler, own, 14, strength=strength) for strength in (0.5, 1.0)]
        found += [case(scheduler, own | {"timestep_spacing": "trailing"}, 5, strength=0.5)]
        specific = {"ddim": DDIM_VARIANTS, "euler": EULER_VARIANTS, "dpmpp_2m": DPMPP_VARIANTS}[scheduler]
        for variant in VARIANTS + specific:
            found += [case(scheduler, changed(own, variant), steps) for steps in (1, 5, 14)]
    for scheduler in SIGMAS:
        found += karras_cases(scheduler, own)
    return found


def karras_cases(scheduler, own):
    found = [case(scheduler, own, steps, karras=True) for steps in (1, 2, 5, 14, 25)]
    found += [case(scheduler, own, 14, karras=True, strength=0.5)]
    variants = [{"timestep_spacing": None}, {"final_sigmas_type": "sigma_min"}, {"prediction_type": "v_prediction"}]
    # Not for DPM++: there two timesteps round to 998, and diffusers, which finds its place by comparing timesteps, fails.
    if scheduler == "euler":
        variants += [{"beta_schedule": "squaredcos_cap_v2"}]
    for variant in variants:
        found += [case(scheduler, changed(own, variant), 5, karras=True)]
    return found


def case(scheduler, config, steps, karras=False, **more):
    return {"scheduler": scheduler, "karras": karras, "num_inference_steps": steps, **more, "config": config}


def changed(config, variant):
    merged = config | variant
    return {key: value for key, value in merged.items() if value is not None or key not in variant}
