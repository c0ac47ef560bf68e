"""The real server, started here and asked over HTTP, with no package but Python's own."""

import concurrent.futures
import contextlib
import json
import queue
import random
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from boxed import BoxedSide, NotMeasured

SEED = 7
# Of one batch of whole requests.
BATCH = 16
RUNS = 5
# Seconds that one request may be waited for at a time; then it is asked for again.
WAIT = 60
SETTINGS = """
[server]
bind = "127.0.0.1:{port}"
[store]
url = "sqlite://{folder}/easel.db"
[pictures]
url = "{folder}/pictures"
[device]
name = "{device}"
dtype = "{dtype}"
[dispatch]
max_canvases = {canvases}
[log]
level = "warn"
[[models]]
name = "model"
path = "{model}"
"""


@dataclass
class Site:
    """What a server is started with."""

    easel: Path
    device: str
    model: Path
    scratch: Path

    @contextlib.contextmanager
    def server(self, clock, canvases=16):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = self.scratch / f"server-{port}"
        folder.mkdir()
        dtype = "auto" if self.device.startswith("cuda") else "float32"
        names = {"port": port, "folder": folder, "device": self.device, "dtype": dtype, "canvases": canvases, "model": self.model}
        (folder / "easel.toml").write_text(SETTINGS.format(**names))
        process = subprocess.Popen([self.easel, "serve", "--config", folder / "easel.toml"], stdout=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(process, url, clock)
            yield url
        finally:
            process.kill()
            process.wait()


def wait_until_ready(process, url, clock):
    while clock.left() > 0 and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return
        time.sleep(0.1)
    raise NotMeasured("the server did not become ready in its time")


def paint(url, clock, size, steps, seed, preview_every=0):
    """Seconds from a request to its end."""
    order = {"prompt": f"a red house by a lake, number {seed}", "width": size, "height": size, "num_inference_steps": steps}
    order |= {"seed": seed, "guidance_scale": 7.5, "preview_every": preview_every}
    start = time.monotonic()
    job = ask(f"{url}/v1/generate", order)
    while job["status"] in ("queued", "running"):
        if clock.left() < 0:
            raise NotMeasured("a request did not end in its time")
        job = ask(f"{url}{job['urls']['self']}")
    if job["status"] != "succeeded":
        raise NotMeasured(f"a job has {job['status']}: {job['error']}")
    return time.monotonic() - start


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "prefer": f"wait={WAIT}"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=WAIT + 10) as answer:
        return json.load(answer)


def overhead(goal, site, clock):
    """G7: the bare loop's time ÷ that of a request with previews, PNG and store, in turns."""
    case = goal.case
    side = BoxedSide.of("easel", site.easel, site.model, site.device)
    served, bare = [], []
    try:
        with site.server(clock) as url:
            side.start_within(clock)
            for run in range(RUNS + 1):
                alone = side.ask(case, clock, enough=False)["seconds"]
                through = paint(url, clock, case["size"], case["steps"], run, preview_every=5)
                if run:
                    bare.append(alone)
                    served.append(through)
    finally:
        side.stop()
    return {"case": case, "seconds": {"bare": bare, "served": served}, "ratio": min(bare) / min(served)}


def closed_loop(goal, site, clock):
    """G6: pictures a second of step batching ÷ of one canvas at a time."""
    rates = {}
    for name, canvases in (("step_batching", 16), ("one_at_a_time", 1)):
        with site.server(clock, canvases) as url:
            rates[name] = crowd(url, goal.case, clock)
    ratio = rates["step_batching"]["pictures_per_second"] / rates["one_at_a_time"]["pictures_per_second"]
    return {"case": goal.case, **rates, "ratio": ratio}


def whole_requests(goal, site, clock):
    """G6's latency: p95 of batching whole requests ÷ of step batching, with the same jobs."""
    found = {}
    for name, batch in (("step_batching", None), ("whole_requests", BATCH)):
        with site.server(clock) as url:
            found[name] = crowd(url, goal.case, clock, batch)
    ratio = found["whole_requests"]["p95_seconds"] / found["step_batching"]["p95_seconds"]
    return {"case": goal.case, **found, "ratio": ratio}


def crowd(url, case, clock, batch=None):
    """All jobs, as many under way as there are clients. With `batch` what waits begins together, when all that began before has ended."""
    dice = random.Random(SEED)
    jobs = queue.SimpleQueue()
    for seed in range(case["jobs"]):
        jobs.put((seed, dice.randint(*case["steps"])))
    paint(url, clock, case["size"], min(case["steps"]), 0)
    gate = Gate(batch)
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(case["clients"]) as clients:
        shares = [clients.submit(client, url, case["size"], jobs, gate, clock) for _ in range(case["clients"])]
        seconds = sorted(second for share in shares for second in share.result())
    took = time.monotonic() - start
    place = {"p50_seconds": 0.5, "p95_seconds": 0.95}
    latencies = {name: seconds[int(share * (len(seconds) - 1))] for name, share in place.items()}
    return {"pictures_per_second": len(seconds) / took, **latencies}


def client(url, size, jobs, gate, clock):
    seconds = []
    while True:
        try:
            seed, steps = jobs.get_nowait()
        except queue.Empty:
            return seconds
        start = time.monotonic()
        with gate:
            paint(url, clock, size, steps, seed)
        seconds.append(time.monotonic() - start)


class Gate:
    """Lets what waits in together, at most `batch`, and the next only when all of them have left; without a batch everybody at once."""

    def __init__(self, batch):
        self.batch, self.changed = batch, threading.Condition()
        self.waiting = self.admitted = self.inside = 0

    def __enter__(self):
        if self.batch is None:
            return
        with self.changed:
            self.waiting += 1
            self.admit()
            self.changed.wait_for(lambda: self.admitted)
            self.waiting -= 1
            self.admitted -= 1
            self.inside += 1

    def __exit__(self, *_):
        if self.batch is None:
            return
        with self.changed:
            self.inside -= 1
            self.admit()

    def admit(self):
        if self.inside == self.admitted == 0:
            self.admitted = min(self.waiting, self.batch)
            self.changed.notify_all()
