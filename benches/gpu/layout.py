"""How easel finds libtorch where there is only Python's: links to the libraries of the installed wheels, in a folder beside the program."""

import importlib.util
import os
import shutil
import sys
import tarfile
from pathlib import Path

# Where a file of some gigabytes is made fast.
MEMORY = Path("/dev/shm")
NEEDED = 24 * 2**30


def scratch():
    """A folder in memory where there is room for the models, else the usual one."""
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > NEEDED else None


def lay_out(easel, pack, folder):
    """The program to start: `easel` as it is, or that of a pack with its libraries in `../lib`, where it looks for them."""
    if pack is None:
        return easel
    folder.mkdir()
    with tarfile.open(pack) as archive:
        archive.extractall(folder, filter="data")
    for library in libraries():
        link(folder / "lib" / library.name, library)
    # torch's own libtorch.so is empty and drags in every library of CUDA's.
    (folder / "lib" / "libtorch.so").unlink(missing_ok=True)
    (folder / "lib" / "libtorch.so").symlink_to("libtorch_cpu.so")
    site = str(folder / "site")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, site)
    return folder / "bin" / "easel"


def libraries():
    """torch's, and NVIDIA's that belong to it."""
    torch = Path(importlib.util.find_spec("torch").origin).parent
    yield from torch.glob("lib/*.so*")
    yield from (torch.parent / "nvidia").glob("*/lib/*.so*")


def link(place, target):
    if not place.exists():
        place.symlink_to(target)
