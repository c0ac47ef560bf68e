"""Where things are, and how a JSON golden is written."""

import json
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent
ROOT = GOLDEN.parent.parent
DEMO = ROOT / "models" / "demo"


def model_folder(name):
    """The folder of the model that a case names."""
    return DEMO if name == "demo" else GOLDEN / name


def write_json(name, value):
    """Writes a golden, one entry of each top-level list a line, so that a difference shows where it is."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, list):
            rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in entry)
            lines.append(f"{json.dumps(key)}: [\n  {rows}\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(entry, ensure_ascii=False)}")
    (GOLDEN / name).write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")
