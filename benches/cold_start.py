"""How long a server takes from the start of its process until it is ready and until its first picture is there, and its memory by then.

    python benches/cold_start.py MODEL PROGRAM… [--dtype bfloat16] [--rounds 3] [--side 256]

MODEL is a folder that `easel serve` can paint with; the PROGRAMs (such as an older build and target/release/easel) are started in turns.
Nothing but Python's own library is needed. The files are as the page cache has them: start once before, or not.
"""

import argparse
import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

SETTINGS = """
[server]
bind = "127.0.0.1:{port}"
[store]
url = "sqlite://{folder}/easel.db"
[pictures]
url = "{folder}/pictures"
[device]
name = "cpu"
dtype = "{dtype}"
[[models]]
name = "model"
path = "{model}"
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(url, process):
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/readyz").close()
            return
        except urllib.error.URLError:  # Nobody listens yet, or 503: the model is being loaded.
            time.sleep(0.005)
    raise SystemExit(f"the server ended with {process.returncode}")


def paint(url, side):
    body = {"prompt": "a red house", "width": side, "height": side, "num_inference_steps": 2, "seed": 7, "preview_every": 0}
    headers = {"content-type": "application/json", "prefer": "wait=60"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/generate", json.dumps(body).encode(), headers)) as answer:
        job = json.load(answer)
    if job["status"] != "succeeded":
        raise SystemExit(f"the first picture is {job['status']}")


def peak_mib(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def start(program, arguments):
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        settings, url = Path(folder, "easel.toml"), f"http://127.0.0.1:{port}"
        model = Path(arguments.model).resolve()
        settings.write_text(SETTINGS.format(port=port, folder=folder, dtype=arguments.dtype, model=model))
        begin = time.monotonic()
        process = subprocess.Popen([program, "serve", "--config", settings], stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(url, process)
            ready, loaded = time.monotonic() - begin, peak_mib(process)
            paint(url, arguments.side)
            return {"ready": round(ready, 2), "first_picture": round(time.monotonic() - begin, 2), "peak_mib_when_ready": loaded}
        finally:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256)
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        for program in arguments.programs:
            print(json.dumps({"program": program, **start(program, arguments)}), flush=True)


if __name__ == "__main__":
    main()
