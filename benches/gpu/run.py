"""Measures the GPU's goals, G1 to G7, in one command of at most ten minutes, on a machine that may have no network: `run.py --json FILE`.

    python benches/gpu/run.py [--compiled] [--budget SECONDS] [--pack FILE] [--only ID …] [--rounds N] [--json FILE] [--dry-run]

Easel is held to eager diffusers, then serving is measured, then Easel is held to torch.compile, which takes minutes for each of the five shapes
before its first picture. Every goal has its time, and one that does not fit into what is left of the budget is reported as not measured, with
the reason; `--compiled` measures those against torch.compile in the place of all others, `--only "G2 compiled"` one by itself. Sides of one goal
take turns, A B A B, on the same weights, which are made on the spot.

The machine needs Python with torch 2.11 for CUDA 13 and transformers. The rest is carried: `pack.py` puts it into FILE, and easel then runs
with the libraries of that torch. `--dry-run` goes through all of it on a CPU with a tiny model, and its
ratios mean nothing.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent / "peers"), str(HERE.parent)]

import layout  # noqa: E402
import matmul  # noqa: E402
import serving  # noqa: E402
from boxed import Sides  # noqa: E402
from own_server import Clock, NotMeasured  # noqa: E402
from plan import MEMORY_AT_MOST, plan  # noqa: E402

# What is held otherwise than by turns with a peer.
WAYS = {
    "overhead": serving.overhead,
    "closed_loop": serving.closed_loop,
    "whole_requests": serving.whole_requests,
    "share": matmul.share,
}
# Kept for writing the report.
RESERVE = 15


def main():
    options = parse()
    clock = Clock(options.budget - RESERVE)
    device = "cpu" if options.dry_run else "cuda:0"
    with tempfile.TemporaryDirectory(dir=layout.scratch()) as scratch:
        scratch = Path(scratch)
        easel = layout.lay_out(options.easel, options.pack, scratch / "easel")
        report = {**about(options), "results": [], "ceiling": matmul.ceiling(easel, device)}
        bench = Bench(easel, device, scratch, options)
        for goal in plan(options):
            report["results"].append(measure(goal, bench, clock))
            write(options.json, report)
        bench.sides.stop()
    print(table(report["results"]), flush=True)


class Bench:
    """What all goals are measured with."""

    def __init__(self, easel, device, scratch, options):
        self.easel, self.device, self.scratch, self.rounds = easel, device, scratch, options.rounds
        self.sides, self.served = Sides(easel, device), {}

    def model(self, name):
        """The folder of a model, made when it is first asked for, in a process of its own whose memory is gone afterwards."""
        folder = self.scratch / name
        code = "import sys, pathlib, models; models.make(sys.argv[1], pathlib.Path(sys.argv[2]))"
        subprocess.run([sys.executable, "-c", code, name, folder], cwd=ROOT / "tests" / "memory", check=True)
        return folder


def measure(goal, bench, clock):
    """The goal's result, or why there is none."""
    start = time.monotonic()
    try:
        left = clock.left()
        if left < goal.seconds:
            raise NotMeasured(f"takes some {goal.seconds} s, and {left:.0f} s were left")
        box = Clock(min(left, goal.most_seconds))
        found = serve(goal, bench, box) if goal.way else times(goal, bench, box)
    except (NotMeasured, subprocess.CalledProcessError, OSError) as problem:
        # Whoever was in the middle of something would answer the next question with it.
        bench.sides.stop()
        found = {"not_measured": str(problem)}
    found = {"id": goal.id, "model": goal.model, "took": round(time.monotonic() - start, 1), **found}
    print(json.dumps(found), flush=True)
    return found


def times(goal, bench, clock):
    """Easel, or Easel in fp8, and one peer in turns. A round that no longer fits is left out."""
    folder = bench.model(goal.model)
    taken, peaks = [[], []], [None, None]
    sides = [bench.sides.of(name, folder, clock) for name in (goal.own, goal.peer)]
    for side in sides:
        side.warm_up(goal.case, clock)
    for _ in range(bench.rounds):
        for place, side in enumerate(sides):
            answer = side.ask(goal.case, clock, enough=bool(taken[1]))
            if answer:
                taken[place].append(answer["seconds"])
                peaks[place] = answer.get("peak_gpu_memory_bytes", peaks[place])
    return compared(goal, taken, peaks, bench.rounds)


def compared(goal, taken, peaks, rounds):
    pairs = list(zip(*taken))
    if not pairs:
        raise NotMeasured("no round came to its end")
    ratios = [peer / own for own, peer in pairs]
    ours, peer = min(own for own, _ in pairs), min(other for _, other in pairs)
    found = {"case": goal.case, "peer": goal.peer, "seconds": taken, "rounds": [len(pairs), rounds]}
    found |= {"ratio": peer / ours, "spread": [min(ratios), max(ratios)]}
    found |= {"at_least": goal.at_least, "reached": peer / ours >= goal.at_least}
    if goal.within:
        found |= {"within": goal.within, "best": ours, "reached": found["reached"] and ours <= goal.within}
    if None not in peaks:
        memory = peaks[0] / peaks[1]
        found |= {"peak_gpu_memory_bytes": peaks, "memory_ratio": memory, "memory_reached": memory <= MEMORY_AT_MOST}
    return found


def serve(goal, bench, clock):
    bench.sides.stop()
    folder = bench.model(goal.model)
    found = WAYS[goal.way](goal, serving.Site(bench.easel, bench.device, folder, bench.scratch, bench.served), clock)
    return found | {"at_least": goal.at_least, "reached": found["ratio"] >= goal.at_least}


def about(options):
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit or None,
        "command": sys.argv,
        "machine": {"cpu": platform.processor() or platform.machine(), "gpu": gpu, "torch": torch.__version__},
        "dry_run": options.dry_run,
    }


def write(file, report):
    """After every goal, so that a command that is cut off leaves what it has."""
    if file:
        Path(file).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def table(results):
    lines = ["| id | peer | ratio | spread | at least | memory |", "|---|---|---|---|---|---|"]
    for found in results:
        if "not_measured" in found:
            lines.append(f"| {found['id']} | not measured: {found['not_measured']} | | | | |")
            continue
        low, high = found.get("spread", [found["ratio"]] * 2)
        wanted = f"{found['at_least']:.2f}" + (f", in {found['within']} s" if "within" in found else "") + ("" if found["reached"] else ", not reached")
        memory = f"{found['memory_ratio']:.2f}" + ("" if found["memory_reached"] else ", too much") if "memory_ratio" in found else ""
        cells = [found["id"], found.get("peer", ""), f"**{found['ratio']:.2f}**", f"{low:.2f}–{high:.2f}", wanted, memory]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--compiled", action="store_true", help="the goals against torch.compile, in the place of all others")
    parser.add_argument("--budget", type=float, default=580)
    parser.add_argument("--pack", type=Path, metavar="FILE", help="what pack.py has made")
    parser.add_argument("--easel", type=Path, default=ROOT / "target" / "release" / "easel")
    parser.add_argument("--only", metavar="ID", nargs="+")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
