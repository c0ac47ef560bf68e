"""How long a server takes from the start of its process until it is ready and until its first picture is there, and its memory by then.

    python benches/cold_start.py MODEL PROGRAM… [--dtype bfloat16] [--rounds 3] [--side 256]

MODEL is a folder that `easel serve` can paint with; the PROGRAMs (such as an older build and target/release/easel) are started in turns.
Nothing but Python's own library is needed. The files are as the page cache has them: start once before, or not.
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

from own_server import Clock, paint, started, wait_until_ready


def peak_mib(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def start(program, arguments):
    settings = {"device": "cpu", "dtype": arguments.dtype, "canvases": 16, "model": Path(arguments.model).resolve()}
    order = {"prompt": "a red house", "width": arguments.side, "height": arguments.side, "num_inference_steps": 2}
    patience = Clock(math.inf)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        with started(program, Path(folder), **settings) as (process, url):
            wait_until_ready(process, url, patience)
            ready, loaded = time.monotonic() - begin, peak_mib(process)
            paint(url, patience, order | {"seed": 7, "preview_every": 0})
            return {"ready": round(ready, 2), "first_picture": round(time.monotonic() - begin, 2), "peak_mib_when_ready": loaded}


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
