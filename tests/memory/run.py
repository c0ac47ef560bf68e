"""Time and memory of loading a full-size model and of painting with it: `easel serve` against diffusers, turn about.

    python tests/memory/run.py [--rounds N] [--side PIXELS] [--steps N] [--threads N] [--keep FOLDER] [MODEL:DTYPE …]

MODEL:DTYPE is by default sd15:float32 and sdxl:bfloat16. Needs a release build of easel, and some 16 GB of memory for SDXL. Models with
random weights are made first (2 and 7 GB of files; in FOLDER, where they stay, or in a temporary folder). Memory is the kernel's own peak
(VmHWM) since the stage's begin, every page of a mapped file that is in memory included. Best of the rounds; the files have just been
written or read, so that no side waits for a disk. Ends with status 1 where easel takes more than diffusers.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Time differs from run to run on a machine that does other things, too; memory hardly does.
ALLOWED = {"load_seconds": 1.1, "load_peak": 1.0, "rest": 1.0, "paint_peak": 1.0}


@dataclass
class Job:
    """What both sides are to do."""

    model: str
    dtype: str
    folder: Path
    threads: int
    side: int
    steps: int


def main():
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(options.keep or scratch)
        worse = False
        for wanted in options.models:
            name, dtype = wanted.split(":")
            make(name, home / name)
            job = Job(name, dtype, home / name, options.threads, options.side, options.steps)
            worse |= compare(job, options.rounds)
    sys.exit(1 if worse else 0)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep")
    parser.add_argument("models", nargs="*", default=["sd15:float32", "sdxl:bfloat16"])
    return parser.parse_args()


def make(name, folder):
    """In a process of its own, whose memory is gone afterwards."""
    code = "import sys, pathlib, models; models.make(sys.argv[1], pathlib.Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, name, folder], cwd=Path(__file__).parent, check=True)


def compare(job, rounds):
    """Prints both sides and their ratio; whether easel takes more."""
    sides = {"easel": easel, "diffusers": diffusers}
    runs = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            runs[side].append(run(job))
    best = {side: {key: min(run[key] for run in runs[side]) for key in runs[side][0]} for side in sides}
    weights = weight_values(job.folder) * BYTES[job.dtype] / 2**20
    print(f"\n{job.model} in {job.dtype}, {job.threads} threads, {job.side} × {job.side}, {job.steps} steps, best of {rounds}")
    print(f"weights: {weights:,.0f} MiB\n{'':24}{'easel':>12}{'diffusers':>12}{'ratio':>8}")
    worse = False
    for key, label in LABELS.items():
        ours, theirs = best["easel"][key], best["diffusers"][key]
        is_worse = ours / theirs > ALLOWED.get(key, float("inf"))
        worse |= is_worse
        print(f"{label:24}{ours:12,.2f}{theirs:12,.2f}{ours / theirs:8.2f}{'  more than diffusers' if is_worse else ''}", flush=True)
    print(f"peak while loading, without the process itself: {best['easel']['load_peak'] - best['easel']['bare']:,.0f} MiB, ", end="")
    print(f"{(best['easel']['load_peak'] - best['easel']['bare']) / weights:.2f} of the weights", flush=True)
    return worse


LABELS = {
    "bare": "before loading, MiB",
    "load_seconds": "load, seconds",
    "load_peak": "peak while loading, MiB",
    "rest": "loaded, MiB",
    "paint_seconds": "paint, seconds",
    "paint_peak": "peak while painting, MiB",
}


def weight_values(folder):
    """Numbers in all weight files, from the files' headers."""
    count = 0
    for file in folder.rglob("*.safetensors"):
        with file.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        offsets = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
        count += sum(end - start for start, end in offsets) // 2
    return count


def diffusers(job):
    script = Path(__file__).with_name("reference.py")
    command = [sys.executable, script, job.folder, job.dtype, job.threads, job.side, job.steps]
    process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(word):
        if process.stdout.readline().strip() != word:
            sys.exit(f"diffusers ended before it was {word}")

    def go():
        process.stdin.write("\n")
        process.stdin.flush()

    turn("ready")
    try:
        return measure(process.pid, lambda: (go(), turn("loaded")), lambda: (go(), turn("painted")))
    finally:
        process.kill()
        process.wait()


def easel(job):
    bare = serve(ROOT / "models" / "demo", job, lambda pid, port, start: memory(pid, "VmRSS"))

    def run(pid, port, start):
        # The server began to load when it was started, so that its start counts, too.
        loaded = after_loading(pid, start, bare)
        return loaded | painting(pid, lambda: paint(port, job))

    return serve(job.folder, job, run)


def serve(model, job, use):
    """Starts a server with one model, waits until it is ready, and hands its process to `use`."""
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port()
        settings = Path(scratch) / "easel.toml"
        settings.write_text(SETTINGS.format(scratch=scratch, port=port, model=model, dtype=job.dtype, threads=job.threads))
        start = time.monotonic()
        process = subprocess.Popen([ROOT / "target" / "release" / "easel", "serve", "--config", settings])
        try:
            wait_until_ready(process, port)
            return use(process.pid, port, start)
        finally:
            process.kill()
            process.wait()


SETTINGS = """
[server]
bind = "127.0.0.1:{port}"
[store]
url = "sqlite://{scratch}/easel.db"
[pictures]
url = "{scratch}/pictures"
[device]
name = "cpu"
dtype = "{dtype}"
threads = {threads}
[log]
level = "warn"
[[models]]
name = "full"
path = "{model}"
"""


def wait_until_ready(process, port):
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
            return
        except urllib.error.URLError:
            time.sleep(0.01)
    sys.exit("easel ended before it was ready")


def paint(port, job):
    body = {"prompt": "a red house", "width": job.side, "height": job.side, "num_inference_steps": job.steps, "seed": 7}
    body |= {"guidance_scale": 7.5, "scheduler": "euler", "preview_every": 0}
    address = f"http://127.0.0.1:{port}"
    head = {"content-type": "application/json", "prefer": "wait=60"}
    request = urllib.request.Request(f"{address}/v1/generate", json.dumps(body).encode(), head)
    painted = json.load(urllib.request.urlopen(request))
    while painted["status"] in ("queued", "running"):
        time.sleep(0.05)
        painted = json.load(urllib.request.urlopen(address + painted["urls"]["self"]))
    if painted["status"] != "succeeded":
        sys.exit(f"easel did not paint: {painted['error']}")


def diffusers(job):
    script = Path(__file__).with_name("reference.py")
    arguments = [sys.executable, script, job.folder, job.dtype, job.threads, job.side, job.steps]
    process = subprocess.Popen([str(part) for part in arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(word):
        if process.stdout.readline().strip() != word:
            sys.exit(f"diffusers ended before it was {word}")

    def go_on(word):
        process.stdin.write("\n")
        process.stdin.flush()
        turn(word)

    try:
        turn("ready")
        bare = memory(process.pid, "VmRSS")
        forget_peak(process.pid)
        start = time.monotonic()
        go_on("loaded")
        loaded = after_loading(process.pid, start, bare)
        return loaded | painting(process.pid, lambda: go_on("painted"))
    finally:
        process.kill()
        process.wait()


def after_loading(pid, start, bare):
    seconds = time.monotonic() - start
    return {"bare": bare, "load_seconds": seconds, "load_peak": memory(pid, "VmHWM"), "rest": memory(pid, "VmRSS")}


def painting(pid, paint):
    forget_peak(pid)
    start = time.monotonic()
    paint()
    return {"paint_seconds": time.monotonic() - start, "paint_peak": memory(pid, "VmHWM")}


def memory(pid, key):
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def forget_peak(pid):
    """The kernel's peak becomes what the process has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()
