"""Unpacks from the wheels in a folder what Easel links against: `libtorch_unpack.py WHEELS DESTINATION`."""

import shutil
import sys
import zipfile
from pathlib import Path

LIBRARIES = ["libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"]
INCLUDE = "torch/include/"


def main():
    wheels, destination = Path(sys.argv[1]), Path(sys.argv[2])
    missing = set(LIBRARIES)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                place = place_of(entry.filename)
                if place is not None and not entry.is_dir():
                    unpack(archive, entry, destination / place)
                    missing.discard(Path(place).name)
    if missing:
        sys.exit(f"the wheels do not contain {', '.join(sorted(missing))}")
    # tch links against libtorch.so, which in the wheel is an empty library that drags in every CUDA library.
    (destination / "lib" / "libtorch.so").symlink_to("libtorch_cpu.so")


def place_of(name):
    """Where a file of a wheel belongs; None when it is not needed."""
    parts = name.split("/")
    if parts[-1] in LIBRARIES and parts[-2:-1] == ["lib"]:
        return f"lib/{parts[-1]}"
    if name.startswith(INCLUDE) and ".." not in parts:
        return f"include/{name[len(INCLUDE):]}"
    return None


def unpack(archive, entry, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, open(place, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


if __name__ == "__main__":
    main()
