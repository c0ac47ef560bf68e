"""The printed comparison: what is within its limit, what is not, and why."""

import math
from dataclasses import dataclass, field

from known import DIFFERENCES, REFERENCES

LATENTS, FORWARDS, MOST = 1e-3, 1e-4, 1e-4


@dataclass
class Row:
    """A family's task: the errors of its pictures, and how many differences are explained."""

    errors: list = field(default_factory=list)
    explained: int = 0


@dataclass
class Table:
    """Cells by family, task and scheduler; the notes that are needed; and the cells that no note explains."""

    cells: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    broken: list = field(default_factory=list)

    def add(self, case, outcome):
        row = self.rows.setdefault((case["family"], case["task"]), Row())
        cell, error = words(case, outcome), outcome.get("error")
        note = None if error is not None and error <= LATENTS else known_difference(case, outcome)
        if note:
            self.notes += [] if note in self.notes else [note]
            cell += f" [{self.notes.index(note) + 1}]"
            row.explained += 1
        else:
            row.errors.append(math.inf if error is None else error)
            if row.errors[-1] > LATENTS:
                cell += " !"
                self.broken.append(f"{case['name']}: {outcome}, diffusers: {case.get('refused', 'paints')}")
        self.cells.setdefault(case["family"], {}).setdefault(case["request"]["scheduler"], {})[case["task"]] = cell

    def errors(self):
        return [error for row in self.rows.values() for error in row.errors]

    def stale(self, cases):
        """Known differences that are none any more."""
        unneeded = [note for note in DIFFERENCES if note not in self.notes and any(note.applies(case) for case in cases)]
        return [f"no longer needed: {note.text}" for note in unneeded]

    def print_all(self, cases):
        for family in self.cells:
            self.print_family(family)
        print(f"\n{'maximum relative error of the final latents':44}{'pictures':>10}{'largest':>10}{'> 1e-4':>8}{'explained':>11}")
        for (family, task), row in self.rows.items():
            above = sum(error > MOST for error in row.errors)
            print(f"{family:28}{task:16}{len(row.errors):10}{max(row.errors, default=0.0):10.1e}{above:8}{row.explained:11}")
        print("\nHow the reference is made where diffusers has no such class:")
        for note in REFERENCES:
            if any(note.applies(case) for case in cases):
                print(f" - {note.text}")
        for number, note in enumerate(self.notes, 1):
            print(f" [{number}] {note.text}")

    def print_family(self, family):
        rows = self.cells[family]
        tasks = list(dict.fromkeys(task for row in rows.values() for task in row))
        print(f"\n{family:32}" + "".join(f"{task:>18}" for task in tasks))
        for scheduler, row in rows.items():
            print(f"  {scheduler:30}" + "".join(f"{row.get(task, ''):>18}" for task in tasks))


def words(case, outcome):
    if "refused" in outcome:
        return "refused"
    if "refused" in case:
        return "no ref."
    return "NaN" if outcome["error"] is None else f"{outcome['error']:.1e}"


def known_difference(case, outcome):
    """The note that explains an error above the limit, or why one side does not paint, if there is one."""
    error, refused = outcome.get("error"), "refused" in outcome or "refused" in case
    for note in DIFFERENCES:
        explains = note.allowed is None if refused else None not in (error, note.allowed) and error <= note.allowed
        if note.applies(case) and explains:
            return note
    return None


def print_forwards(forwards):
    """Prints the full-size networks; answers those beyond the limit."""
    print(f"\n{'maximum relative error of one forward, full size':54}")
    for name, error in forwards:
        print(f"  {name:30}{error:18.1e}{'' if error <= FORWARDS else ' !'}")
    return [f"{name}: {error:.1e}" for name, error in forwards if not error <= FORWARDS]
