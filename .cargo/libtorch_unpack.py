"""Unpacks from the wheels in a folder what Easel needs: `libtorch_unpack.py WHEELS DESTINATION cpu|cuda`."""

import shutil
import sys
import zipfile
from pathlib import Path

CPU = ["libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"]
# libtorch_cuda.so, what it links against, and what these open while they run: the parts of cuDNN and the run-time compiler. Not here: what
# only training, linear algebra solvers and profilers open.
CUDA = [
    "libtorch_cuda.so",
    "libc10_cuda.so",
    "libcaffe2_nvrtc.so",
    "libtorch_nvshmem.so",
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcudnn.so.9",
    "libcudnn_adv.so.9",
    "libcudnn_cnn.so.9",
    "libcudnn_engines_precompiled.so.9",
    "libcudnn_engines_runtime_compiled.so.9",
    "libcudnn_graph.so.9",
    "libcudnn_heuristic.so.9",
    "libcudnn_ops.so.9",
    "libcufft.so.12",
    "libcufile.so.0",
    "libcurand.so.10",
    "libcusparse.so.12",
    "libcusparseLt.so.0",
    "libnccl.so.2",
    "libnvJitLink.so.13",
    "libnvrtc-builtins.so.13.0",
    "libnvrtc.so.13",
    "libnvshmem_host.so.3",
]
INCLUDE = "torch/include/"
# CUDA's own headers, of two wheels, for what Easel compiles against libtorch_cuda.so.
CUDA_INCLUDE = "nvidia/cu13/include/"
CUDA_HEADERS = ["nvidia_cuda_runtime-", "nvidia_cuda_crt-"]


def main():
    wheels, destination = Path(sys.argv[1]), Path(sys.argv[2])
    libraries = CPU + CUDA if sys.argv[3] == "cuda" else CPU
    missing = set(libraries)
    for wheel in sorted(wheels.glob("*.whl")):
        has_headers = sys.argv[3] == "cuda" and any(wheel.name.startswith(name) for name in CUDA_HEADERS)
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                place = place_of(entry.filename, libraries, has_headers)
                if place is not None and not entry.is_dir():
                    unpack(archive, entry, destination / place)
                    missing.discard(Path(place).name)
    if missing:
        sys.exit(f"the wheels do not contain {', '.join(sorted(missing))}")
    # tch links against libtorch.so, which in the wheel is an empty library that drags in every CUDA library.
    (destination / "lib" / "libtorch.so").symlink_to("libtorch_cpu.so")


def place_of(name, libraries, has_headers):
    """Where a file of a wheel belongs; None when it is not needed."""
    parts = name.split("/")
    if parts[-1] in libraries and parts[-2:-1] == ["lib"]:
        return f"lib/{parts[-1]}"
    if name.startswith(INCLUDE) and ".." not in parts:
        return f"include/{name[len(INCLUDE):]}"
    if has_headers and name.startswith(CUDA_INCLUDE) and ".." not in parts:
        return f"include-cuda/{name[len(CUDA_INCLUDE):]}"
    return None


def unpack(archive, entry, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, open(place, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


if __name__ == "__main__":
    main()
