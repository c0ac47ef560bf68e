"""Holds Easel against diffusers: every family × its tasks × every scheduler on small models, and full-size networks.

    python tests/parity/run.py [--keep FOLDER] [--family NAME …] [--full-size NAME …]

Both sides compute in float32 on the CPU. Ends with status 1 where the error of the final latents is above 1e-3, that of a full-size
forward above 1e-4, or one side does not paint, and known.py does not say why. By default everything is compared, some 20 minutes on two
cores, with 14 GB of memory and 6 GB of temporary files for Stable Diffusion XL; `--full-size` without a name leaves the networks out.
FOLDER keeps what both have made of the small models.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(GOLDEN))

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns while it is imported

import diffusers  # noqa: E402
import reference  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from families import FAMILIES  # noqa: E402
from table import LATENTS, MOST, Table, print_forwards  # noqa: E402

# The test of src/diffusion/models/full_size.rs for each model of tests/golden/full_size.py.
FULL_SIZE = {"sd15": "stable_diffusion_1_5", "sd21": "stable_diffusion_2_1", "sdxl": "stable_diffusion_xl"}


def main():
    options = parse()
    be_quiet()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        cases, outcomes = paint(Path(options.keep or scratch), options.family)
        forwards = [forward for name in options.full_size for forward in compare_full_size(name)]
    sys.exit(report(cases, outcomes, forwards))


def be_quiet():
    """Nothing but the comparison: configs with unused or outdated keys are wanted here."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)


def parse():
    names = [family.name for family in FAMILIES]
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep")
    parser.add_argument("--family", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--full-size", nargs="*", default=list(FULL_SIZE), choices=list(FULL_SIZE), metavar="NAME")
    return parser.parse_args()


def paint(folder, names):
    """The cases, painted by diffusers, and what came of each in Easel."""
    print("diffusers paints", flush=True)
    cases = reference.make(folder, [family for family in FAMILIES if family.name in names])
    print("Easel paints", flush=True)
    cargo_test("--test", "it", "golden::parity", EASEL_PARITY=folder)
    lines = (folder / "errors.jsonl").read_text().splitlines()
    return cases, {outcome["name"]: outcome for outcome in map(json.loads, lines)}


def compare_full_size(name):
    """(network, error) of each forward. The weights are gone afterwards."""
    print(f"full size: {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, whose memory is gone afterwards.
        subprocess.run([sys.executable, GOLDEN / "full_size.py", folder, name], check=True)
        printed = cargo_test("--lib", FULL_SIZE[name], EASEL_FULL_SIZE=folder, may_fail=True)
    found = re.findall(r"^(\S+ \S+): maximum relative error (\S+)", printed, re.MULTILINE)
    if not found:
        sys.exit(f"no forward of {name} has been computed:\n{printed}")
    return [(network, float(error)) for network, error in found]


def cargo_test(target, *names, may_fail=False, **environment):
    """What the ignored tests of this name print."""
    command = ["cargo", "test", "--locked", "--quiet", target, *names, "--", "--ignored", "--nocapture", "--test-threads", "1"]
    told = os.environ | {name: str(value) for name, value in environment.items()}
    run = subprocess.run(command, cwd=ROOT, env=told, stdout=subprocess.PIPE, text=True)
    if run.returncode and not may_fail:
        sys.exit(run.stdout)
    return run.stdout


def report(cases, outcomes, forwards):
    """Prints the comparison; answers the exit status."""
    table = Table()
    for case in cases:
        table.add(case, outcomes[case["name"]])
    versions = ", ".join(f"{name} {version(name)}" for name in ("diffusers", "transformers", "torch"))
    print(f"\nEasel against {versions}: float32 on the CPU")
    table.print_all(cases)
    broken = table.broken + table.stale(cases) + (print_forwards(forwards) if forwards else [])
    errors, explained = table.errors(), sum(row.explained for row in table.rows.values())
    within = f"{sum(error <= MOST for error in errors)} of them within {MOST:.0e}, all within {max(errors):.1e} (limit {LATENTS:.0e})"
    print(f"\n{len(errors)} pictures, {within}; {explained} differences explained", end="")
    print(f"; {len(forwards)} full-size forwards within {max(e for _, e in forwards):.1e}" if forwards else "")
    for line in broken:
        print(f"BROKEN {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    main()
