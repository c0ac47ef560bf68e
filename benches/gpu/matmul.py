"""What the GPU reaches in a product of two large matrices, and how near to it a step comes: `easel bench` says both."""

import json
import subprocess

from own_server import NotMeasured

# Of a dry run's matrices.
SMALL = ["--matmul", "512"]


def ceiling(easel, device):
    """The product's, in the dtype that models have on the device."""
    try:
        return bench(easel, device, ["--model", "tiny", "--part", "preview"], 60)["matmul"]
    except NotMeasured as problem:
        return {"not_measured": str(problem)}


def share(goal, site, clock):
    """G3's other half: the rate of a UNet step of `rows` rows ÷ the ceiling of the same run."""
    case = goal.case
    arguments = ["--model", site.model, "--part", "unet", "--rows", case["rows"], "--size", case["size"]]
    found = bench(site.easel, site.device, arguments, clock.left())
    step = found["results"][0]
    rates = {"tflop_per_second": step["tflop_per_second"], "matmul": found["matmul"]}
    return {"case": case, **rates, "ratio": step["share_of_matmul"]}


def bench(easel, device, arguments, seconds):
    """The report of the one model that `easel bench` is given."""
    small = SMALL if device == "cpu" else []
    command = [easel, "bench", "--device", device, "--json", "/dev/stdout", *small, *arguments]
    try:
        run = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        raise NotMeasured("easel bench did not end in its time") from None
    start = run.stdout.find("\n{")
    if run.returncode or start < 0:
        raise NotMeasured(run.stderr[-500:])
    return json.loads(run.stdout[start:])["models"][0]
