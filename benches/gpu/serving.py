"""The real server, started here and asked over HTTP, with no package but Python's own."""

import concurrent.futures
import contextlib
import queue
import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import own_server
from boxed import BoxedSide

SEED = 7
# Of one batch of whole requests.
BATCH = 16
RUNS = 3


@dataclass
class Site:
    """What a server is started with, and what was measured of it."""

    easel: Path
    device: str
    model: Path
    scratch: Path
    known: dict = field(default_factory=dict)

    @contextlib.contextmanager
    def server(self, clock, canvases=16):
        dtype = "auto" if self.device.startswith("cuda") else "float32"
        settings = {"device": self.device, "dtype": dtype, "canvases": canvases, "model": self.model}
        folder = Path(tempfile.mkdtemp(prefix="server-", dir=self.scratch))
        with own_server.started(self.easel, folder, **settings) as (process, url):
            own_server.wait_until_ready(process, url, clock)
            yield url


def paint(url, clock, size, steps, seed, preview_every=0):
    """Seconds from a request to its end."""
    order = {"prompt": f"a red house by a lake, number {seed}", "width": size, "height": size, "num_inference_steps": steps}
    return own_server.paint(url, clock, order | {"seed": seed, "guidance_scale": 7.5, "preview_every": preview_every})


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


def step_batching(goal, site, clock):
    """What both of G6's halves are held to; measured once for each model."""
    if goal.model not in site.known:
        with site.server(clock) as url:
            site.known[goal.model] = crowd(url, goal.case, clock)
    return site.known[goal.model]


def closed_loop(goal, site, clock):
    """G6: pictures a second of step batching ÷ of one canvas at a time."""
    rates = {"step_batching": step_batching(goal, site, clock)}
    with site.server(clock, canvases=1) as url:
        rates["one_at_a_time"] = crowd(url, goal.case, clock)
    ratio = rates["step_batching"]["pictures_per_second"] / rates["one_at_a_time"]["pictures_per_second"]
    return {"case": goal.case, **rates, "ratio": ratio}


def whole_requests(goal, site, clock):
    """G6's latency: p95 of batching whole requests ÷ of step batching, with the same jobs."""
    found = {"step_batching": step_batching(goal, site, clock)}
    with site.server(clock) as url:
        found["whole_requests"] = crowd(url, goal.case, clock, BATCH)
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
