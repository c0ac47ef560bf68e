"""The families that `make parity` covers: one row, one model folder, and the pipeline of diffusers for each of its tasks."""

from dataclasses import dataclass, field

from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
)

TEXT2IMG, IMG2IMG, INPAINTING = "text2img", "img2img", "inpainting"
EDIT, UNCONDITIONAL, REFINED = "instruct_pix2pix", "unconditional", "refiner"
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
# The first pipeline; the second is the refiner's img2img.
THEN_REFINED = {REFINED: StableDiffusionXLPipeline}
REFINER = {IMG2IMG: StableDiffusionXLImg2ImgPipeline, INPAINTING: StableDiffusionXLInpaintPipeline}
NINE_CHANNELS = dict.fromkeys(STABLE_DIFFUSION, StableDiffusionInpaintPipeline)
# diffusers has no pipeline that could: maker/latent_loop.py paints them.
LATENT = dict.fromkeys((TEXT2IMG, IMG2IMG, INPAINTING))
TEXTLESS = dict.fromkeys((UNCONDITIONAL, IMG2IMG, INPAINTING))
# Pictures of the size that is asked for: resized they may be 1 of 255 apart, which would be the whole difference of pixels.
GABLE = {"image_file": "init-gable.png", "width": 64, "height": 64, "strength": 0.7}
DOOR = {"image_file": "init-door.png", "width": 48, "height": 32, "strength": 0.7}
DISC, SMALL_MASK = {"mask_file": "mask-disc.png"}, {"mask_file": "mask-small.png"}


@dataclass(frozen=True)
class Family:
    """`base` is the folder that the model is laid over; `scheduler_keys` are put into its scheduler_config.json; `fields` are a task's own."""

    name: str
    model: str
    tasks: dict
    base: str | None = None
    scheduler_keys: dict = field(default_factory=dict)
    request: dict = field(default_factory=dict)
    fields: dict = field(default_factory=dict)
    with_sigma_schedules: bool = False


FAMILIES = [
    Family("SD 1, trained", "demo", STABLE_DIFFUSION, with_sigma_schedules=True, request={"prompt": "a purple cat in the snow"}),
    Family("SD 1.5", "tiny-sd1", STABLE_DIFFUSION),
    Family("SD 2.1", "tiny-sd2", STABLE_DIFFUSION, with_sigma_schedules=True),
    Family(
        "SD 1.5, zero SNR",
        "tiny-sd1",
        {TEXT2IMG: StableDiffusionPipeline},
        scheduler_keys={"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
    Family("SD 2, sample", "tiny-sd2", {TEXT2IMG: StableDiffusionPipeline}, scheduler_keys={"prediction_type": "sample"}),
    Family(
        "SD 2, zero SNR",
        "tiny-sd2",
        {TEXT2IMG: StableDiffusionPipeline},
        scheduler_keys={"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
    Family(
        "SD XL",
        "tiny-sdxl",
        XL | THEN_REFINED,
        fields={REFINED: {"width": 88, "height": 72, "refiner": "tiny-sdxl-refiner", "refiner_start": 0.6}},
    ),
    Family("SD XL refiner", "tiny-sdxl-refiner", REFINER),
    # Under a mask only: a wholly white one leaves the VAE a picture of one colour, whose rounding errors its norms make a thousand times
    # larger on these random weights (diffusers' own latents move by 1.7e-4 when the weights move by 1e-7, under a soft mask by 4.5e-7).
    Family("SD XL inpainting", "tiny-sdxl-nine", {INPAINTING: StableDiffusionXLInpaintPipeline}, base="tiny-sdxl"),
    Family(
        "SD XL edit",
        "tiny-sdxl-edit",
        {EDIT: StableDiffusionXLInstructPix2PixPipeline},
        base="tiny-sdxl",
        request={"image_guidance_scale": 1.5},
    ),
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
    Family(
        "Latent diffusion",
        "tiny-ldm",
        LATENT,
        fields={TEXT2IMG: {"width": 72, "height": 88}, IMG2IMG: GABLE, INPAINTING: GABLE | DISC},
    ),
    Family(
        "Latent diffusion, no text",
        "tiny-ldm-faces",
        TEXTLESS,
        fields={UNCONDITIONAL: {"width": 64, "height": 64}, IMG2IMG: GABLE, INPAINTING: GABLE | DISC},
    ),
    Family(
        "DDPM",
        "tiny-ddpm",
        TEXTLESS,
        fields={UNCONDITIONAL: {"width": 48, "height": 32}, IMG2IMG: DOOR, INPAINTING: DOOR | SMALL_MASK},
    ),
    Family(
        "DDPM, grey",
        "tiny-ddim",
        TEXTLESS,
        fields={UNCONDITIONAL: {"width": 32, "height": 24}, IMG2IMG: DOOR, INPAINTING: DOOR | SMALL_MASK},
    ),
]
