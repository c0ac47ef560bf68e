"""Holds what `easel convert` writes against diffusers' own `from_single_file`, and what diffusers writes against `easel convert`.

`make files` runs it:

    python tests/golden/single_files.py target/release/easel            # small models of every family
    python tests/golden/single_files.py target/release/easel --full     # and Stable Diffusion 1.5 in its own size (10 GB of memory, 18 GB of disk)

For each model, with random weights in diffusers layout: Easel makes the single file; diffusers reads it (the configs from the folder, as the
hub is not asked) and every tensor must be the same, bit for bit. Then diffusers saves what it has read as a folder again, Easel makes a
file of that and a folder of that file, and every tensor must once more be the same. The file in float16 must hold what torch rounds the tensors
to. Last, the file is stripped of the configs that Easel keeps in it, and `easel convert` must find the family, and configs of the same shapes, by
itself. Stable Diffusion 2's file has then got what the published one has and nobody uses, the text encoder's last layer among it, and diffusers
must read the same from it, too.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

DEMO = Path(__file__).resolve().parent.parent.parent / "models" / "demo"
WEIGHTED = ("unet", "vae", "text_encoder", "text_encoder_2")
# A step of the small models: heads of 64 channels and groups of 32 are as published, so that shapes tell the rest.
WIDTH = 64


def main():
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    easel, full = Path(sys.argv[1]).resolve(), "--full" in sys.argv[2:]
    models = [sd1, sd1_inpaint, sd1_edit, sd2, sdxl, refiner] + ([sd1_full] if full else [])
    print(f"{'model':14} {'tensors':>8} {'diffusers reads':>16} {'and back':>9} {'float16':>8} {'by shapes':>10}")
    failures = sum(not check(easel, make) for make in models)
    sys.exit(1 if failures else 0)


def check(easel, make):
    torch.manual_seed(7)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        folder, single = scratch / "folder", scratch / "single.safetensors"
        pipe = make()
        pipe.save_pretrained(folder)
        ours = state(pipe)
        convert(easel, folder, single)
        read = from_single_file(type(pipe), single, folder)
        reads = same(ours, state(read))
        read.save_pretrained(scratch / "again")
        pipeline = type(pipe)
        del read, pipe
        convert(easel, scratch / "again", scratch / "again.safetensors")
        remove(scratch / "again")
        convert(easel, scratch / "again.safetensors", scratch / "back")
        back = same(ours, files_of(scratch / "back"))
        remove(scratch / "again.safetensors", scratch / "back")
        convert(easel, folder, scratch / "half.safetensors", "--dtype", "float16")
        convert(easel, scratch / "half.safetensors", scratch / "half")
        half = same({name: tensor.half() for name, tensor in ours.items()}, files_of(scratch / "half"))
        remove(scratch / "half.safetensors", scratch / "half")
        bare = scratch / "bare.safetensors"
        strip(single, bare, leftovers if make is sd2 else lambda tensors: {})
        convert(easel, bare, scratch / "bare")
        told = same(ours, files_of(scratch / "bare")) and same_configs(folder, scratch / "bare")
        told = told and (make is not sd2 or same(ours, state(from_single_file(pipeline, bare, folder))))
        words = word(reads), word(back), word(half), word(told)
        print("{:14} {:8} {:>16} {:>9} {:>8} {:>10}".format(make.__name__, len(ours), *words), flush=True)
        return reads and back and half and told


def remove(*paths):
    """Models of full size are many gigabytes: each goes as soon as it has been looked at."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def from_single_file(pipeline, single, folder):
    return pipeline.from_single_file(str(single), config=str(folder), local_files_only=True, safety_checker=None, torch_dtype=torch.float32)


def word(is_same):
    return "same" if is_same else "DIFFERENT"


def convert(easel, source, target, *options):
    subprocess.run([easel, "convert", source, target, *options], check=True, stdout=subprocess.DEVNULL)


def state(pipe):
    """Every weight of a pipeline by part and name."""
    parts = {part: getattr(pipe, part, None) for part in WEIGHTED}
    weights = {part: module.state_dict() for part, module in parts.items() if module is not None}
    return {f"{part}.{plain(name)}": tensor for part, tensors in weights.items() for name, tensor in tensors.items() if is_weight(name)}


def files_of(folder):
    """The same, from a folder's files."""
    files = [(file.parent.name, load_file(file)) for file in folder.glob("*/*.safetensors")]
    return {f"{part}.{plain(name)}": tensor for part, tensors in files for name, tensor in tensors.items() if is_weight(name)}


def plain(name):
    return name.removeprefix("text_model.")


def is_weight(name):
    return not name.endswith("position_ids")


def same(ours, theirs):
    different = [name for name in ours if name not in theirs or not torch.equal(ours[name], theirs[name])]
    surplus = sorted(theirs.keys() - ours.keys())
    for name in different[:5] + surplus[:5]:
        print(f"  differs: {name}")
    return not different and not surplus


def same_configs(folder, bare):
    """What shapes and families must tell; `None` where diffusers' default means the same."""
    keys = {
        "unet": "in_channels out_channels block_out_channels down_block_types up_block_types cross_attention_dim use_linear_projection "
        "addition_embed_type projection_class_embeddings_input_dim",
        "vae": "block_out_channels latent_channels layers_per_block scaling_factor",
        "text_encoder": "hidden_size intermediate_size num_hidden_layers num_attention_heads hidden_act vocab_size max_position_embeddings",
        "text_encoder_2": "hidden_size intermediate_size num_hidden_layers num_attention_heads hidden_act projection_dim",
        "scheduler": "beta_start beta_end beta_schedule prediction_type",
    }
    differing = []
    for part, names in keys.items():
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        if not (folder / part).is_dir():
            continue
        one, other = (json.loads((root / part / name).read_text()) for root in (folder, bare))
        differing += [f"{part}.{key}: {one.get(key)} and {other.get(key)}" for key in names.split() if one.get(key) != other.get(key)]
        if part == "unet":
            heads = [spread(config["attention_head_dim"], len(config["block_out_channels"])) for config in (one, other)]
            differing += [f"unet.attention_head_dim: {heads}"] if heads[0] != heads[1] else []
    classes = [json.loads((root / "model_index.json").read_text())["_class_name"] for root in (folder, bare)]
    differing += [f"_class_name: {classes}"] if classes[0] != classes[1] else []
    for difference in differing:
        print(f"  differs: {difference}")
    return not differing


def spread(value, count):
    return value if isinstance(value, list) else [value] * count


def strip(source, target, more):
    with safe_open(source, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    save_file(tensors | more(tensors), target)


def leftovers(tensors):
    """What the published file has besides: the text encoder's last layer and projection, and bookkeeping."""
    layer, last = (f"cond_stage_model.model.transformer.resblocks.{index}." for index in (22, 23))
    layers = {key.replace(layer, last): tensor.clone() for key, tensor in tensors.items() if key.startswith(layer)}
    width = tensors["cond_stage_model.model.positional_embedding"].shape[1]
    return layers | {
        "cond_stage_model.model.text_projection": torch.randn(width, width),
        "cond_stage_model.model.logit_scale": torch.tensor(4.6),
        "alphas_cumprod": torch.rand(1000),
        "model_ema.decay": torch.tensor(0.9999),
        "global_step": torch.tensor(875000),
    }


def sd1():
    return StableDiffusionPipeline(**small_parts(in_channels=4))


def sd1_inpaint():
    return StableDiffusionInpaintPipeline(**small_parts(in_channels=9))


def sd1_edit():
    return StableDiffusionInstructPix2PixPipeline(**small_parts(in_channels=8))


def small_parts(in_channels):
    return no_checker() | {
        "unet": unet(["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], in_channels=in_channels, attention_head_dim=8, cross_attention_dim=128),
        "vae": vae(0.18215),
        "text_encoder": CLIPTextModel(text(128, "quick_gelu")),
        "tokenizer": tokenizer("<|endoftext|>"),
        "scheduler": PNDMScheduler(**BETAS, skip_prk_steps=True),
    }


def sd2():
    return StableDiffusionPipeline(
        **no_checker(),
        unet=unet(
            ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            attention_head_dim=[1, 1, 2, 2],
            cross_attention_dim=128,
            use_linear_projection=True,
        ),
        vae=vae(0.18215),
        text_encoder=CLIPTextModel(text(128, "gelu", num_hidden_layers=23)),
        tokenizer=tokenizer("!"),
        scheduler=DDIMScheduler(**BETAS, clip_sample=False),
    )


def sdxl():
    return StableDiffusionXLPipeline(
        unet=unet(
            ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            attention_head_dim=[1, 1, 2],
            transformer_layers_per_block=[1, 2, 3],
            cross_attention_dim=192,
            use_linear_projection=True,
            **added(128 + 6 * 256),
        ),
        vae=vae(0.13025),
        # Of another width than the second: diffusers tells them apart by it.
        text_encoder=CLIPTextModel(text(64, "quick_gelu")),
        tokenizer=tokenizer("<|endoftext|>"),
        text_encoder_2=CLIPTextModelWithProjection(text(128, "gelu", projection_dim=128, num_hidden_layers=11)),
        tokenizer_2=tokenizer("!"),
        scheduler=EulerDiscreteScheduler(**BETAS),
    )


def refiner():
    return StableDiffusionXLImg2ImgPipeline(
        unet=unet(
            ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            attention_head_dim=[1, 1, 2, 2],
            transformer_layers_per_block=4,
            cross_attention_dim=1280,
            use_linear_projection=True,
            **added(1280 + 5 * 256),
        ),
        vae=vae(0.13025),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=CLIPTextModelWithProjection(text(1280, "gelu", projection_dim=1280, num_hidden_layers=11, num_attention_heads=20)),
        tokenizer_2=tokenizer("!"),
        scheduler=EulerDiscreteScheduler(**BETAS),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )


def sd1_full():
    return StableDiffusionPipeline(
        **no_checker(),
        unet=UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
        ),
        vae=vae(0.18215, widths=(128, 256, 512, 512)),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768)
        ),
        tokenizer=tokenizer("<|endoftext|>"),
        scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True),
    )


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def unet(blocks, **settings):
    widths = [WIDTH, WIDTH, 2 * WIDTH, 2 * WIDTH][: len(blocks)]
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=widths,
        down_block_types=blocks,
        up_block_types=[block.replace("Down", "Up") for block in reversed(blocks)],
        layers_per_block=2,
        **settings,
    )


def added(width):
    return {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": width}


def vae(scaling_factor, widths=(32, 32, 64, 64)):
    count = len(widths)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=["DownEncoderBlock2D"] * count,
        up_block_types=["UpDecoderBlock2D"] * count,
        layers_per_block=2,
        scaling_factor=scaling_factor,
    )


def text(width, act, **settings):
    settings = {"num_hidden_layers": 2, "num_attention_heads": width // 64, "projection_dim": width} | settings
    return CLIPTextConfig(hidden_size=width, intermediate_size=2 * width, hidden_act=act, eos_token_id=49407, bos_token_id=49406, **settings)


def tokenizer(pad):
    return CLIPTokenizer.from_pretrained(DEMO / "tokenizer", pad_token=pad)


def no_checker():
    return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


if __name__ == "__main__":
    main()
