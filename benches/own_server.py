"""The real server, started here and asked over HTTP, with no package but Python's own."""

import contextlib
import http.client
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

# Seconds that one request may be waited for at a time; then it is asked for again.
WAIT = 60
ENDS = ("succeeded", "failed", "cancelled")
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
warm_up = false
[dispatch]
max_canvases = {canvases}
[log]
level = "warn"
[[models]]
name = "model"
path = "{model}"
"""


class NotMeasured(Exception):
    """Why."""


class Clock:
    """Seconds that are left."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        return self.end - time.monotonic()


@contextlib.contextmanager
def started(easel, folder, **settings):
    """A server's process, with its files in the folder, and its URL. It may not be ready yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "easel.toml"
    config.write_text(SETTINGS.format(port=port, folder=folder, **settings))
    process = subprocess.Popen([easel, "serve", "--config", config], stdout=subprocess.DEVNULL)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_until_ready(process, url, clock):
    while clock.left() > 0 and process.poll() is None:
        # Nobody listens yet, or 503: the model is being loaded.
        with contextlib.suppress(OSError, http.client.HTTPException), urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return
        time.sleep(0.005)
    raise NotMeasured("the server did not become ready" if process.poll() is None else f"the server ended with {process.returncode}")


def paint(url, clock, order):
    """Seconds from a request to its end. One with previews is watched: nobody else is sent any."""
    start = time.monotonic()
    job = watched(url, clock, order) if order["preview_every"] else waited_for(url, clock, order)
    if job["status"] != "succeeded":
        raise NotMeasured(f"a job has {job['status']}: {job['error']}")
    return time.monotonic() - start


def waited_for(url, clock, order):
    """The job, once it has ended."""
    job = ask(f"{url}/v1/generate", clock, order)
    while job["status"] not in ENDS:
        job = ask(f"{url}{job['urls']['self']}", clock)
    return job


def watched(url, clock, order):
    """The job that the last of its events has."""
    job = ask(f"{url}/v1/generate", clock, order, wait=0)
    kind, previews = None, 0
    with opened(f"{url}{job['urls']['events']}", clock) as events:
        for line in events:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            kind = value if name == "event" else kind
            if name == "data" and kind in ENDS:
                if not previews and order["num_inference_steps"] > order["preview_every"]:
                    raise NotMeasured("no preview came, so that their cost is not known")
                return json.loads(value)
            previews += name == "data" and kind == "preview"
            if clock.left() < 0:
                break
    raise NotMeasured("a job's events did not come to its end in their time")


def ask(url, clock, body=None, wait=WAIT):
    """A job, after at most so many seconds and no later than the clock allows."""
    with opened(url, clock, body, wait=int(min(wait, max(clock.left(), 0)))) as answer:
        return json.load(answer)


def opened(url, clock, body=None, wait=0):
    left = clock.left()
    if left <= 0:
        raise NotMeasured("a request did not end in its time")
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({"prefer": f"wait={wait}"} if wait else {})
    try:
        # Some seconds for the answer of who has waited for as long as there was.
        return urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=min(WAIT, left) + 5)
    except TimeoutError as late:
        raise NotMeasured("a request did not end in its time") from late
    except urllib.error.HTTPError as refused:
        raise NotMeasured(f"{url}: {refused.code} {refused.read()[:300]!r}") from refused
