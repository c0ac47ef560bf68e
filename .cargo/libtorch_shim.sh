#!/usr/bin/env bash
# Compiles libeasel_cuda.so, which gives Easel CUDA graphs and streams, beside libtorch_cuda.so: `libtorch_shim.sh LIBTORCH CUDA_INCLUDE...`.
# A C++ compiler does; nvcc is not needed. Does nothing where it is there and its source has not changed. Run by .cargo/libtorch.sh.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source="$(dirname "$here")/src/sys/cuda/easel_cuda.cpp"
libtorch="$1"
shift
library="$libtorch/lib/libeasel_cuda.so"

sha256sum <"$source" | cmp -s - "$library.stamp" && [ -e "$library" ] && exit 0
includes=()
for folder in "$libtorch/include" "$@"; do includes+=(-isystem "$folder"); done
echo "libtorch: compiling $library"
"${CXX:-c++}" -std=c++17 -O2 -fPIC -shared -fvisibility=hidden "${includes[@]}" "$source" -o "$library.new" \
    -L"$libtorch/lib" -Wl,--no-as-needed -l:libtorch_cuda.so -l:libc10_cuda.so -l:libtorch_cpu.so -l:libc10.so \
    -Wl,-rpath,'$ORIGIN' -Wl,--allow-shlib-undefined -Wl,-z,defs
mv "$library.new" "$library"
sha256sum <"$source" >"$library.stamp"
