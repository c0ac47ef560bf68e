"""The sides of benches/peers, each answer within its time."""

import json
import selectors
import subprocess

from own_server import NotMeasured
from sides import ROOT, SIDES, Settings

# Of a CPU's sides; a GPU's do not care.
THREADS = 2
# The first call of a shape runs as it is, the second is recorded, and what comes then is as it stays.
WARM_STEPS = 4


class BoxedSide:
    """A program that is timed, and ended where it takes too long."""

    def __init__(self, side):
        self.name, self.command, self.process, self.slowest = side.name, side.command, None, 0.0

    @classmethod
    def of(cls, name, easel, folder, device):
        return cls(SIDES[name](Settings(folder, device, THREADS, easel)))

    def start_within(self, clock):
        command = [str(part) for part in self.command]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self.answer(clock, "loading the model")

    def ask(self, case, clock, enough):
        """The answer to a case; None where one more does not fit and there are `enough`."""
        if enough and self.slowest > clock.left():
            return None
        answer = self.run(case, clock, "a run")
        self.slowest = max(self.slowest, answer["seconds"])
        return answer

    def warm_up(self, case, clock):
        """As many steps as compile, record and tune all of a case's. What they take says nothing of it."""
        self.run({**case, "steps": WARM_STEPS}, clock, "the first run with all that it compiles")
        self.slowest = 0.0

    def run(self, case, clock, what):
        self.process.stdin.write(json.dumps(case).encode() + b"\n")
        self.process.stdin.flush()
        return self.answer(clock, what)

    def answer(self, clock, what):
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(clock.left(), 0)):
                raise NotMeasured(f"{self.name}: {what} did not end in its time")
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"it ended with {self.process.wait()}"}
        if "error" in answer:
            raise NotMeasured(f"{self.name}: {answer['error']}")
        return answer

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


class Sides:
    """The sides that run, all of one model: the goals of a model share them, and another model has the device for itself."""

    def __init__(self, easel, device):
        self.easel, self.device, self.folder, self.running = easel, device, None, {}

    def of(self, name, folder, clock):
        """The side of this name, started if it does not run."""
        if folder != self.folder:
            self.stop()
            self.folder = folder
        if name not in self.running:
            self.running[name] = BoxedSide.of(name, self.easel, folder, self.device)
            self.running[name].start_within(clock)
        return self.running[name]

    def stop(self):
        """Also those that are in the middle of something."""
        for side in self.running.values():
            side.stop()
        self.running = {}
