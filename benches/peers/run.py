"""Times Easel and its peers in turns, on the same weights, in one run: `make peers`.

    python benches/peers/run.py [--rounds N] [--threads N] [--device cpu|cuda:0] [--keep FOLDER] [--only ID …] [--compile] [--json FILE]
                                [--no-serving] [--dry-run] [--easel PROGRAM]

Every side is a process of its own with the model in memory. Each round runs every case once on every side, A B A B, so that whatever slows
the machine slows all of them. The ratio of a goal is the peer's best time ÷ Easel's best; the ratios of the single rounds are its spread.
Last comes C6 (G6 on a GPU), the server under load, from benches/serving. Needs a release build of easel, the packages of tests/golden/requirements.txt and benches/peers/requirements.txt, and 20 GB of memory;
models with random weights are made first (2 GB, Stable Diffusion XL 7 GB, in FOLDER, where they stay, or in a temporary one). `--dry-run`
goes through all of it with a tiny model in a minute, and its ratios mean nothing.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import goals
from sides import EASEL, ROOT, SIDES, Settings

GIB = 2**30


def main():
    options = parse()
    groups = goals(options.device != "cpu", options.compile, options.dry_run)
    groups = [[goal for goal in group if not options.only or goal.id in options.only] for group in groups]
    rows, report = [], about(options)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(options.keep or scratch)
        for group in filter(None, groups):
            model = group[0].model
            make(model, home / model)
            settings = Settings(home / model, options.device, options.threads, options.easel)
            rows += time_group(group, settings, options.rounds)
        report["results"] = rows
        print(f"\n{table(rows)}", flush=True)
        write(options.json, report)
        # Only some goals: the server under load is none of them.
        if options.serving and not options.only:
            report["serving"] = [serving(load) for load in loads(options, home)]
            write(options.json, report)


def write(file, report):
    """Also before what comes last: a load that fails takes nothing with it."""
    if file:
        Path(file).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", metavar="FOLDER")
    parser.add_argument("--only", metavar="ID", nargs="+")
    parser.add_argument("--compile", action="store_true", help="torch.compile on a CPU, too")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--no-serving", dest="serving", action="store_false")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--easel", type=Path, default=EASEL)
    return parser.parse_args()


def make(model, folder):
    """In a process of its own, whose memory is gone afterwards."""
    code = "import sys, pathlib, models; models.make(sys.argv[1], pathlib.Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, model, folder.resolve()], cwd=ROOT / "tests" / "memory", check=True)


def time_group(group, settings, rounds):
    """The results of a group's goals."""
    names = list(dict.fromkeys(name for goal in group for name in (goal.ours, goal.peer)))
    sides = {name: SIDES[name](settings) for name in names}
    try:
        for side in sides.values():
            side.start()
        seconds = time_sides(group, sides, rounds)
        peaks = {name: peak(side.process.pid) for name, side in sides.items()}
    finally:
        for side in sides.values():
            side.stop()
    return [result(goal, seconds, peaks, sides) for goal in group]


def time_sides(group, sides, rounds):
    """Seconds by case and side, one a round, after one that does not count."""
    seconds = {}
    for turn in range(rounds + 1):
        for case, name in dict.fromkeys((of(goal), name) for goal in group for name in (goal.ours, goal.peer)):
            taken = sides[name].time(json.loads(case))
            print(f"{'warm-up' if turn == 0 else f'round {turn}'}  {name:16}{taken:10.4f} s  {case}", flush=True)
            if turn:
                seconds.setdefault((case, name), []).append(taken)
    return seconds


def of(goal):
    """A goal's case, as a side is told it."""
    return json.dumps({**goal.case, "size": goal.size})


def result(goal, seconds, peaks, sides):
    ours, peers = seconds[of(goal), goal.ours], seconds[of(goal), goal.peer]
    ratios = [peer / own for own, peer in zip(ours, peers)]
    ratio = min(peers) / min(ours)
    return {
        "id": goal.id,
        "model": goal.model,
        "case": json.loads(of(goal)),
        "ours": {"name": goal.ours, **sides[goal.ours].about, "seconds": ours, "peak_gib": peaks[goal.ours]},
        "peer": {"name": goal.peer, **sides[goal.peer].about, "seconds": peers, "peak_gib": peaks[goal.peer]},
        "ratio": ratio,
        "spread": [min(ratios), max(ratios)],
        "at_least": goal.at_least,
        "aim": goal.aim,
        "reached": ratio >= goal.at_least,
    }


def peak(pid):
    """GiB of resident memory, the most that the process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / GIB


def loads(options, home):
    """The arguments of the serving bench: C6, or G6."""
    if options.dry_run:
        return [["closed", "--jobs", "8", "--clients", "4", "--rounds", "1", "--size", "64", "--steps", "2,3,4"]]
    if options.device == "cpu":
        return [["closed"]]
    many = ["--clients", "32", "--jobs", "64", "--rounds", "1", "--steps", "20,30,50"]
    return [[*many, "--model", home / model, "--size", size] for model, size in (("sd15", 512), ("sdxl", 1024))]


def serving(arguments):
    """What the serving bench reports."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "serving.json"
        command = ["cargo", "bench", "--locked", "--bench", "serving", "--", *arguments, "--json", file]
        subprocess.run([str(part) for part in command], cwd=ROOT, check=True)
        return json.loads(file.read_text())


def table(rows):
    lines = ["| id | Easel | seconds | peer | seconds | ratio | spread | at least |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        ours, peer = row["ours"], row["peer"]
        low, high = row["spread"]
        cells = [
            row["id"],
            f"{ours['name']} ({ours['dtype']})",
            f"{min(ours['seconds']):.3f}",
            peer["name"],
            f"{min(peer['seconds']):.3f}",
            f"**{row['ratio']:.2f}**",
            f"{low:.2f}–{high:.2f}",
            f"{row['at_least']:.2f}" + ("" if row["reached"] else ", not reached"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def about(options):
    packages = ["torch", "diffusers", "transformers", "openvino"]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or None,
        "command": " ".join(["python", "benches/peers/run.py", *sys.argv[1:]]),
        "machine": {"cpu": cpu(), "threads": options.threads, "device": options.device, "kernel": platform.release()},
        "versions": {name: version(name) for name in packages},
        "rounds": options.rounds,
        "dry_run": options.dry_run,
    }


def cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
