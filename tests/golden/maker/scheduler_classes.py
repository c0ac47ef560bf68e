"""Which class of diffusers a request's scheduler is, and how it is made from a model's config."""

import importlib

import diffusers

CLASSES = {
    "ddim": diffusers.DDIMScheduler,
    "ddpm": diffusers.DDPMScheduler,
    "pndm": diffusers.PNDMScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_ancestral": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "dpm2": diffusers.KDPM2DiscreteScheduler,
    "dpm2_ancestral": diffusers.KDPM2AncestralDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "dpmpp_3m": diffusers.DPMSolverMultistepScheduler,
    "dpmpp_sde": diffusers.DPMSolverSDEScheduler,
    "dpmpp_2m_sde": diffusers.DPMSolverMultistepScheduler,
    "dpmpp_3m_sde": diffusers.DPMSolverMultistepScheduler,
    "deis": diffusers.DEISMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "lcm": diffusers.LCMScheduler,
    "tcd": diffusers.TCDScheduler,
}
# Not in diffusers, or not on a model's own noise levels: these take Euler's, and EulerAncestral's rule for what carries over.
ON_EULERS_SIGMAS = ["dpmpp_2s_ancestral", "ipndm"]
NO_SIGMA_KEYS = ["euler_ancestral", *ON_EULERS_SIGMAS]
MODULES = [importlib.import_module(name) for name in sorted({made.__module__ for made in CLASSES.values()})]
SIGMA_KEYS = {
    "_karras": {"use_karras_sigmas": True},
    "_exponential": {"use_exponential_sigmas": True},
    "_beta": {"use_beta_sigmas": True},
    "_sgm_uniform": {"timestep_spacing": "trailing"},
}
ALGORITHM_KEYS = {
    "dpmpp_3m": {"solver_order": 3},
    "dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++"},
    "dpmpp_3m_sde": {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
}


def split_name(name):
    """`euler_karras` is `euler` with `_karras`."""
    suffix = next((suffix for suffix in SIGMA_KEYS if name.endswith(suffix)), "")
    return name.removesuffix(suffix), suffix


def make_scheduler(name, config):
    """The class that a name means, made of a model's config."""
    algorithm, suffix = split_name(name)
    keys = SIGMA_KEYS.get(suffix, {})
    if suffix in ("_karras", "_exponential", "_beta"):
        keys = dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), False) | keys
    if algorithm in ON_EULERS_SIGMAS or (algorithm in NO_SIGMA_KEYS and suffix not in ("", "_sgm_uniform")):
        dropped = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "sigma_min", "sigma_max", "final_sigmas_type")
        config = {key: value for key, value in config.items() if key not in dropped}
        return diffusers.EulerDiscreteScheduler.from_config(config, **keys)
    return CLASSES[algorithm].from_config(config, **keys, **ALGORITHM_KEYS.get(algorithm, {}))
