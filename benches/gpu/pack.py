"""Puts into one file what a machine with a GPU and Python, but without a network, lacks: `pack.py FILE.tar.xz`.

The program without its symbols, libeasel_cuda.so (`make libtorch-cuda` builds it; without it there are no CUDA graphs), and diffusers as
pip unpacks it: some 10 MiB. Together with a clone of the repository that is all; `run.py --pack FILE.tar.xz` does the rest.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# That of tests/golden/requirements.txt, without what it needs: that is torch's and transformers', too.
PACKAGES = ["diffusers==0.42.1"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--easel", type=Path, default=ROOT / "target" / "release" / "easel")
    parser.add_argument("--libtorch", type=Path, default=ROOT / ".libtorch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        gather(Path(scratch), options)
        with tarfile.open(options.file, "w:xz") as archive:
            archive.add(scratch, ".")
    print(f"{options.file.stat().st_size / 2**20:.1f} MiB in {options.file}")


def gather(folder, options):
    for name in ("bin", "lib", "site"):
        (folder / name).mkdir()
    subprocess.run(["strip", "--strip-all", "-o", folder / "bin" / "easel", options.easel], check=True)
    shim = options.libtorch / "lib" / "libeasel_cuda.so"
    if shim.is_file():
        shutil.copy(shim, folder / "lib")
    else:
        print(f"{shim} is not there: without it there are no CUDA graphs; `make libtorch-cuda` builds it", file=sys.stderr)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", folder / "site"]
    subprocess.run([*install, *PACKAGES], check=True)


if __name__ == "__main__":
    main()
