"""What is held against whom: the goals of issue 5, by their ids. A ratio is the peer's time ÷ Easel's.

Cases of one group are timed in turns in one run, with all its sides in memory at the same time.
"""

from dataclasses import dataclass

STEP = {"part": "unet", "rows": 2, "steps": 1}
DECODE = {"part": "vae_decode"}


@dataclass(frozen=True)
class Goal:
    """`peer` ÷ `ours` in `case` of `model` is to be `at_least`; `aim` is what would be better still."""

    id: str
    model: str
    size: int
    case: dict
    ours: str
    peer: str
    at_least: float
    aim: float = None


CPU = [
    [
        Goal("C1", "sd15", 512, STEP, "easel", "diffusers fp32", 1.8),
        Goal("C2", "sd15", 512, STEP, "easel", "diffusers bf16", 1.1, 1.2),
        Goal("C3 fp32", "sd15", 512, DECODE, "easel", "diffusers fp32", 2.5),
        Goal("C3 bf16", "sd15", 512, DECODE, "easel", "diffusers bf16", 1.25),
        Goal("C4", "sd15", 512, STEP, "easel fp32", "diffusers fp32", 1.05),
    ],
    [Goal("C5", "sd15", 512, STEP, "easel", "openvino bf16", 0.85, 1.0)],
]
# Compiling takes minutes on a CPU, and gains little there: only with --compile.
CPU_COMPILED = [[Goal("C2 compiled", "sd15", 512, STEP, "easel", "compile bf16", 1.1)]]


def against_both(id, model, size, case, eager, compiled):
    """A goal against eager diffusers, and one against the compiled."""
    whole = {"part": "whole", **case}
    return [
        Goal(f"{id} eager", model, size, whole, "easel", "diffusers bf16", *eager),
        Goal(f"{id} compiled", model, size, whole, "easel", "compile bf16", *compiled),
    ]


# The goals of a model share one group, so that it is loaded and compiled once.
GPU = [
    [
        *against_both("G1", "sd15", 512, {"steps": 50}, (2.0, 3.0), (0.85, 1.0)),
        *against_both("G4", "sd15", 512, {"steps": 50, "canvases": 16}, (1.15, 1.4), (0.85,)),
    ],
    [
        *against_both("G2", "sdxl", 1024, {"steps": 30}, (1.25, 1.5), (0.9, 1.0)),
        *against_both("G3", "sdxl", 1024, {"steps": 30, "canvases": 8}, (1.15, 1.3), (0.9,)),
        *against_both("G5", "sdxl", 512, {"steps": 1, "guided": False}, (2.0,), (0.9,)),
    ],
]


def goals(is_gpu, compiled, dry_run):
    """Groups of goals; a dry run has the same with a tiny model."""
    groups = GPU if is_gpu else CPU + (CPU_COMPILED if compiled else [])
    if not dry_run:
        return groups
    return [[Goal(g.id, "tiny", 64, {**g.case, **few(g.case)}, g.ours, g.peer, g.at_least, g.aim) for g in group] for group in groups]


def few(case):
    """Two steps of what has many."""
    return {"steps": min(case["steps"], 2)} if "steps" in case else {}
