"""The printed comparison: what is within its limit, what is not, and why."""

from dataclasses import dataclass, field

from known import DIFFERENCES, REFERENCES

LATENTS, FORWARDS, MOST = 1e-3, 1e-4, 1e-4


@dataclass
class Table:
    """Cells by family, task and scheduler; the notes that are needed; and the cells that no note explains."""

    cells: dict = field(default_factory=dict)
    errors: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    broken: list = field(default_factory=list)

    def add(self, case, outcome):
        error = outcome.get("error")
        if error is not None:
            self.errors.setdefault((case["family"], case["task"]), []).append(error)
        cell = "NaN" if error is None else f"{error:.1e}"
        if "refused" in outcome or "refused" in case:
            cell = "refused" if "refused" in outcome else "no ref."
        if not (error is not None and error <= LATENTS):
            cell += self.explanation(case, error, outcome)
        self.cells.setdefault(case["family"], {}).setdefault(case["request"]["scheduler"], {})[case["task"]] = cell

    def explanation(self, case, error, outcome):
        for note in DIFFERENCES:
            if note.applies(case) and (error is None or (note.allowed is not None and error <= note.allowed)):
                self.notes += [] if note in self.notes else [note]
                return f" [{self.notes.index(note) + 1}]"
        self.broken.append(f"{case['name']}: {outcome}, diffusers: {case.get('refused', 'paints')}")
        return " !"

    def stale(self, cases):
        """Known differences that are none any more."""
        unneeded = [note for note in DIFFERENCES if note not in self.notes and any(note.applies(case) for case in cases)]
        return [f"no longer needed: {note.text}" for note in unneeded]

    def print_all(self, cases):
        for family in self.cells:
            self.print_family(family)
        print(f"\n{'maximum relative error of the final latents':44}{'pictures':>10}{'largest':>10}{'> 1e-4':>8}")
        for (family, task), errors in self.errors.items():
            print(f"{family:28}{task:16}{len(errors):10}{max(errors):10.1e}{sum(error > MOST for error in errors):8}")
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


def print_forwards(forwards):
    """Prints the full-size networks; answers those beyond the limit."""
    print(f"\n{'maximum relative error of one forward, full size':54}")
    for name, error in forwards:
        print(f"  {name:30}{error:18.1e}{'' if error <= FORWARDS else ' !'}")
    return [f"{name}: {error:.1e}" for name, error in forwards if not error <= FORWARDS]
