"""Holds a running server to openapi.yaml: schemathesis looks for what does not keep it, and a client made from it paints.

`make contract` runs it, in a virtual environment with requirements.txt, on the debug build.
"""

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "contract"
TOOLS = Path(sys.executable).parent
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/easel"
CLIENT = ROOT / ".tools" / "client"
LOG = ROOT / ".tools" / "contract.log"
STOP_SECONDS = 60


@contextlib.contextmanager
def easel(folder: Path, key: str) -> Iterator[str]:
    """A server with its data in `folder` that knows `key`; answers its URL, and must stop as it should."""
    entry = f'{{name="contract",sha256="{hashlib.sha256(key.encode()).hexdigest()}",admin=true}}'
    settings = {
        "EASEL__STORE__URL": f"sqlite://{folder}/easel.db",
        "EASEL__PICTURES__URL": str(folder / "pictures"),
        "EASEL__AUTH__KEYS": f"[{entry}]",
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("EASEL_")}
    command = [BINARY, "serve", "--config", HERE / "easel.toml"]
    with LOG.open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=others | settings, stderr=log)
    try:
        yield address_of(server)
    finally:
        server.terminate()
        code = server.wait(STOP_SECONDS)
    if code != 0:
        sys.exit(f"the server ended with {code}; its log is {LOG}")


def address_of(server: subprocess.Popen[bytes]) -> str:
    """Waits until the server's log says that it listens and has loaded its models."""
    while server.poll() is None:
        lines = [line for line in LOG.read_text().splitlines(keepends=True) if line.endswith("\n")]
        entries = {entry["message"]: entry for entry in map(json.loads, lines)}
        if {"listening", "models loaded"} <= entries.keys():
            return f"http://{entries['listening']['server.address']}"
        time.sleep(0.1)
    sys.exit(f"the server did not start; its log is {LOG}")


def run(*command: object, **variables: str) -> None:
    print("+", *command, flush=True)
    tools = {"PATH": f"{TOOLS}:{os.environ['PATH']}"}
    done = subprocess.run([str(word) for word in command], cwd=ROOT, env=os.environ | tools | variables)
    if done.returncode != 0:
        sys.exit(f"{command[0]} found something")


def generate_client() -> None:
    """Makes a typed client of the document and checks its types, and those of the script that uses it."""
    config = HERE / "client.yaml"
    run("openapi-python-client", "generate", "--path", "openapi.yaml", "--output-path", CLIENT, "--overwrite", "--config", config)
    run("mypy", "--strict", CLIENT / "easel_client", HERE / "paint.py", MYPYPATH=str(CLIENT))


def main() -> None:
    key = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory() as folder, easel(Path(folder), key) as url:
        config = HERE / "schemathesis.toml"
        run("schemathesis", "--config-file", config, "run", "openapi.yaml", "--url", url, EASEL_KEY=key)
        generate_client()
        run(TOOLS / "python", HERE / "paint.py", url, EASEL_KEY=key, PYTHONPATH=str(CLIENT))


main()
