"""What is measured, in which order, and how long each may take."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Goal:
    """`ratio` is the peer's time ÷ that of `own`, or what run.py's WAYS say. `seconds` is the least that it is begun with. Where `within` is
    given, `own` may take at most so many seconds."""

    id: str
    model: str
    at_least: float
    seconds: int
    most_seconds: int
    case: dict = None
    peer: str = None
    way: str = None
    own: str = "easel"
    within: float = None


def whole(size, steps, **more):
    return {"part": "whole", "size": size, "steps": steps, **more}


EAGER, COMPILED = "diffusers bf16", "compile bf16"
G1, G4 = whole(512, 50), whole(512, 50, canvases=16)
G2, G3, G5 = whole(1024, 30), whole(1024, 30, canvases=8), whole(512, 1, guided=False)
CROWD = {"size": 512, "jobs": 64, "steps": [20, 50], "clients": 32}
LARGE_CROWD = {**CROWD, "size": 1024, "jobs": 32}
# All that is on the device together ÷ that of diffusers' eager: G7's other half.
MEMORY_AT_MOST = 1.05
# Goals of one model stand together, so that its programs are started once. The seconds are guesses for an H100: no GPU has run it yet.
PLAN = [
    Goal("G1 eager", "sd15", 2.0, 40, 60, G1, EAGER),
    Goal("G4 eager", "sd15", 1.15, 40, 75, G4, EAGER),
    Goal("G7", "sd15", 1 / 1.03, 25, 40, G1, way="overhead"),
    Goal("G6", "sd15", 2.0, 60, 90, CROWD, way="closed_loop"),
    Goal("G6 p95", "sd15", 1 / 0.7, 40, 60, CROWD, way="whole_requests"),
    Goal("G2 eager", "sdxl", 1.25, 70, 100, G2, EAGER),
    Goal("G5 eager", "sdxl", 2.0, 10, 20, G5, EAGER, within=0.025),
    Goal("G3 eager", "sdxl", 1.15, 65, 100, G3, EAGER),
    Goal("G3 share", "sdxl", 0.45, 25, 40, {"size": 1024, "rows": 16}, way="share"),
    Goal("G6 sdxl", "sdxl", 1.15, 90, 130, LARGE_CROWD, way="closed_loop"),
    Goal("G6 p95 sdxl", "sdxl", 1 / 0.7, 60, 80, LARGE_CROWD, way="whole_requests"),
    # What a request's fp8_linears bring: no goal names a figure, but less than 1 would be a loss. In what time is left: they may need a command of
    # their own, with --only.
    Goal("G2 fp8", "sdxl", 1.0, 40, 60, G2, "easel", own="easel fp8"),
    Goal("G3 fp8", "sdxl", 1.0, 50, 80, G3, "easel", own="easel fp8"),
    # Each compiles one shape: what does not fit behind the others has a command of its own, --compiled.
    Goal("G1 compiled", "sd15", 0.85, 90, 130, G1, COMPILED),
    Goal("G4 compiled", "sd15", 0.85, 90, 150, G4, COMPILED),
    Goal("G2 compiled", "sdxl", 0.9, 150, 250, G2, COMPILED),
    Goal("G5 compiled", "sdxl", 0.9, 90, 150, G5, COMPILED),
    Goal("G3 compiled", "sdxl", 0.9, 130, 250, G3, COMPILED),
]


def plan(options):
    """The command's goals; a dry run has the same with a tiny model and few steps."""
    if options.only:
        goals = [goal for goal in PLAN if goal.id in options.only]
    else:
        goals = [goal for goal in PLAN if goal.peer == COMPILED or not options.compiled]
    return [tiny(goal) for goal in goals] if options.dry_run else goals


def tiny(goal):
    few = {"steps": [2, 4] if "clients" in goal.case else 2, "canvases": 2, "clients": 4, "jobs": 8}
    case = {**goal.case, "size": 64, **{name: value for name, value in few.items() if name in goal.case}}
    return replace(goal, model="tiny", case=case, seconds=1)
