"""Puts into FOLDER what a machine with a GPU and Python, but without a network, lacks: `pack.py FOLDER`.

The program without its symbols, libeasel_cuda.so (`make libtorch-cuda` builds it; without it there are no CUDA graphs), and diffusers as pip
unpacks it. Together with the repository it stays under 64 MiB. `run.py --pack FOLDER` uses it.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST = 64 * 2**20
# What tests/golden/requirements.txt has, without what it needs: that is torch's and transformers' own.
PACKAGES = ["diffusers==0.42.1"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--easel", type=Path, default=ROOT / "target" / "release" / "easel")
    parser.add_argument("--libtorch", type=Path, default=ROOT / ".libtorch")
    options = parser.parse_args()
    for name in ("bin", "lib", "site"):
        shutil.rmtree(options.folder / name, ignore_errors=True)
        (options.folder / name).mkdir(parents=True)
    subprocess.run(["strip", "--strip-all", "-o", options.folder / "bin" / "easel", options.easel], check=True)
    shim = options.libtorch / "lib" / "libeasel_cuda.so"
    if shim.is_file():
        shutil.copy(shim, options.folder / "lib")
    else:
        print(f"{shim} is not there: without it there are no CUDA graphs; `make libtorch-cuda` builds it", file=sys.stderr)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", options.folder / "site"]
    subprocess.run([*install, *PACKAGES], check=True)
    size = sum(file.stat().st_size for file in options.folder.rglob("*") if file.is_file())
    print(f"{size / 2**20:.1f} MiB in {options.folder}")
    if size > MOST:
        sys.exit(f"that is more than {MOST >> 20} MiB")


if __name__ == "__main__":
    main()
