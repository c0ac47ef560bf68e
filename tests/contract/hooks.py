"""What openapi.yaml cannot say, told to schemathesis: the values that only this server knows, and the rule that needs arithmetic.

The document is that of every server, so it says "a name from /v1/models" and "a picture in base64". Here stand the names and some
pictures, so that a request that schemathesis takes for right is right, and everything else is tried as wrong.
"""

import base64
import hashlib
import json
import re
import struct
import zlib

import requests
import schemathesis

MODELS = ["demo"]
MAX_SIZE = 128
MAX_SEED = 2**53 - 1
# What a field means depends on the model, and no schema knows which models are served: the demo model takes none of these.
OTHER_MODELS_FIELDS = [
    "original_size",
    "crops_coords_top_left",
    "target_size",
    "negative_original_size",
    "negative_crops_coords_top_left",
    "negative_target_size",
    "aesthetic_score",
    "negative_aesthetic_score",
    "refiner",
    "image_guidance_scale",
]
CURSORS = ["AAAAAAAAAAE", "f_________8"]


def png(width: int, height: int) -> str:
    """A grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + b"\x80" * width) * height
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(file).decode()


@schemathesis.hook
def before_load_schema(context, raw_schema):
    schemas = raw_schema["components"]["schemas"]
    fields = schemas["GenerateRequest"]["properties"]
    fields["model"] = {"enum": MODELS}
    # Models that take no text are not served here.
    schemas["GenerateRequest"]["required"] = ["prompt"]
    fields["image"] = {"enum": [png(64, 64), f"data:image/png;base64,{png(40, 64)}"]}
    fields["mask_image"] = {"enum": [png(64, 64), f"data:image/png;base64,{png(48, 40)}"]}
    # Spellings are many: the document asks for a string, and /v1/schedulers has the rule.
    fields["scheduler"] = {"enum": [*schemas["Scheduler"]["enum"], "DPM++ 2M Karras", "Euler a", "UniPCMultistepScheduler"]}
    for name in OTHER_MODELS_FIELDS:
        del fields[name]
    schemas["Side"]["maximum"] = MAX_SIZE
    for parameter in raw_schema["paths"]["/v1/jobs"]["get"]["parameters"]:
        if parameter.get("name") == "cursor":
            parameter["schema"] = {"enum": CURSORS}
    # This server has keys, so none of its clients is anonymous.
    raw_schema["security"] = [{"key": []}]


@schemathesis.hook
def filter_case(context, case):
    """JSON Schema cannot calculate: it cannot say that a strength must leave a step, the last picture's seed be in its range, and an
    interval rise; nor does it say here that a mask is one of a picture."""
    body = case.body if isinstance(case.body, dict) else {}

    def number(name, default):
        value = body.get(name, default)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else default

    leaves_no_step = "image" in body and 0 < number("strength", 0.8) * number("num_inference_steps", 25) < 1
    last_seed_too_large = number("seed", 0) <= MAX_SEED < number("seed", 0) + number("num_images", 1) - 1
    masks_nothing = "mask_image" in body and "image" not in body
    interval = body.get("guidance_interval")
    ends = interval if isinstance(interval, list) and all(type(end) in (int, float) for end in interval) else []
    falls = ends != sorted(ends)
    return not (leaves_no_step or last_seed_too_large or masks_nothing or falls)


@schemathesis.hook
def before_call(context, case, kwargs):
    """A key names one request, so the same example of a key cannot do for all of them."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(r"[!#-~]{1,200}", key):
        request = json.dumps([case.formatted_path, case.body], default=str, sort_keys=True)
        case.headers["Idempotency-Key"] = f"{key}-{hashlib.sha256(request.encode()).hexdigest()[:16]}"


@schemathesis.hook
def after_call(context, case, response):
    """A queue that stays paused would let everything that waits for a job wait for ever."""
    if case.operation.label == "POST /v1/queue/pause" and response.status_code == 200:
        resume = response.request.url.replace("/pause", "/resume")
        requests.post(resume, headers={"Authorization": response.request.headers["Authorization"]}, timeout=30)
