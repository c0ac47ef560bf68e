"""The families that `make parity` covers: one row, one model folder, and the pipeline of diffusers for each of its tasks."""

from dataclasses import dataclass, field

from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)

TEXT2IMG, IMG2IMG, INPAINTING, EDIT = "text2img", "img2img", "inpainting", "instruct_pix2pix"
STABLE_DIFFUSION = {
    TEXT2IMG: StableDiffusionPipeline,
    IMG2IMG: StableDiffusionImg2ImgPipeline,
    INPAINTING: StableDiffusionInpaintPipeline,
}
XL = {
    TEXT2IMG: StableDiffusionXLPipeline,
    IMG2IMG: StableDiffusionXLImg2ImgPipeline,
    INPAINTING: StableDiffusionXLInpaintPipeline,
}
REFINER = {IMG2IMG: StableDiffusionXLImg2ImgPipeline, INPAINTING: StableDiffusionXLInpaintPipeline}
NINE_CHANNELS = dict.fromkeys(STABLE_DIFFUSION, StableDiffusionInpaintPipeline)


@dataclass(frozen=True)
class Family:
    """`base` is the folder that the model is laid over; `scheduler_keys` are put into its scheduler_config.json."""

    name: str
    model: str
    tasks: dict
    base: str | None = None
    scheduler_keys: dict = field(default_factory=dict)
    request: dict = field(default_factory=dict)
    with_sigma_schedules: bool = False


FAMILIES = [
    Family("SD 1, trained", "demo", STABLE_DIFFUSION, with_sigma_schedules=True, request={"prompt": "a purple cat in the snow"}),
    Family("SD 1.5", "tiny-sd1", STABLE_DIFFUSION),
    Family("SD 2.1", "tiny-sd2", STABLE_DIFFUSION, with_sigma_schedules=True),
    Family("SD 2, sample", "tiny-sd2", {TEXT2IMG: StableDiffusionPipeline}, scheduler_keys={"prediction_type": "sample"}),
    Family(
        "SD 2, zero SNR",
        "tiny-sd2",
        {TEXT2IMG: StableDiffusionPipeline},
        scheduler_keys={"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
    Family("SD XL", "tiny-sdxl", XL),
    Family("SD XL refiner", "tiny-sdxl-refiner", REFINER),
    Family("LCM", "tiny-lcm", STABLE_DIFFUSION),
    Family("BK-SDM", "tiny-bk-sdm", STABLE_DIFFUSION),
    Family("SD 2 inpainting", "tiny-inpaint", NINE_CHANNELS, base="tiny-sd2"),
    Family(
        "InstructPix2Pix",
        "tiny-edit",
        {EDIT: StableDiffusionInstructPix2PixPipeline},
        base="tiny-sd2",
        request={"image_guidance_scale": 1.5},
    ),
]
