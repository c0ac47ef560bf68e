"""The programs that are timed, each in a process of its own that answers lines.

A side says `{"ready": …}` when its model is loaded. Then each line `{"part": "unet", "rows": 2, "size": 512, "steps": 1}` is run once and
answered `{"seconds": …}`. Between its lines a side waits for the next one and takes no time from the others.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EASEL = ROOT / "target" / "release" / "easel"
# What the libraries would say of themselves.
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


@dataclass
class Settings:
    """What all sides have in common."""

    folder: Path
    device: str
    threads: int
    easel: Path = EASEL


@dataclass
class Side:
    """A program that is timed; `command` starts it."""

    name: str
    command: list
    process: subprocess.Popen = field(default=None, repr=False)
    about: dict = field(default_factory=dict)

    def start(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [str(part) for part in self.command]
        self.process = subprocess.Popen(command, env=os.environ | QUIET, cwd=ROOT, **pipes)
        self.about = self.answer()

    def time(self, case):
        """Seconds of one run."""
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        return self.answer()["seconds"]

    def answer(self):
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"it ended with {self.process.wait()}"}
        if "error" in answer:
            sys.exit(f"{self.name}: {answer['error']}")
        return answer

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


def easel(settings, name, dtype, *options):
    command = [settings.easel, "bench", "--lines", "--model", settings.folder]
    return Side(name, [*command, "--device", settings.device, "--dtype", dtype, "--threads", settings.threads, *options])


def diffusers(settings, name, dtype, *options):
    command = [sys.executable, HERE / "diffusers_side.py", settings.folder, settings.device, dtype, settings.threads]
    return Side(name, [*command, *options])


def openvino(settings, name, dtype):
    return Side(name, [sys.executable, HERE / "openvino_side.py", settings.folder, dtype, settings.threads])


# By the names that cases.py uses.
SIDES = {
    "easel": lambda settings: easel(settings, "easel", "auto"),
    "easel fp8": lambda settings: easel(settings, "easel fp8", "auto", "--fp8-linears"),
    "easel fp32": lambda settings: easel(settings, "easel fp32", "float32"),
    "diffusers fp32": lambda settings: diffusers(settings, "diffusers fp32", "float32"),
    "diffusers bf16": lambda settings: diffusers(settings, "diffusers bf16", "bfloat16"),
    "compile bf16": lambda settings: diffusers(settings, "compile bf16", "bfloat16", "--compile"),
    "openvino bf16": lambda settings: openvino(settings, "openvino bf16", "bf16"),
}
