#!/usr/bin/env bash
# Fetches libtorch into .libtorch, once: pinned wheels from PyPI, checked by SHA-256, of which only what Easel needs is kept.
# `libtorch.sh cuda` fetches what a GPU needs, too; the same binary uses it where there is a GPU.
# A LIBTORCH that is set in the environment is used instead, and nothing is fetched. Run by `make libtorch` and `make libtorch-cuda`.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$here")"
target="$root/.libtorch"
device="${1:-cpu}"
requirements=("$here/libtorch-requirements.txt")
size="540 MB"

fail() {
    printf 'libtorch: %s\n' "$@" >&2
    exit 1
}

add_cuda() {
    # What was once fetched for a GPU stays.
    [ "$device" = cuda ] || [ -e "$target/lib/libtorch_cuda.so" ] || return 0
    device=cuda
    requirements+=("$here/libtorch-cuda-requirements.txt")
    size="2.3 GB"
}

use_given() {
    [ -e "$LIBTORCH/lib/libtorch.so" ] && [ -d "$LIBTORCH/include" ] ||
        fail "LIBTORCH is set to $LIBTORCH, which has no lib/libtorch.so or no include/; unset it to fetch the pinned one"
    [ "$device" = cpu ] || [ -e "$LIBTORCH/lib/libtorch_cuda.so" ] ||
        fail "LIBTORCH is set to $LIBTORCH, which has no lib/libtorch_cuda.so; unset it to fetch the pinned one"
    echo "libtorch: using LIBTORCH=$LIBTORCH"
    [ "$device" = cpu ] || shim_of_given
}

# The headers of a given libtorch's CUDA: those of a toolkit on this machine.
shim_of_given() {
    local folder
    for folder in "${CUDA_HOME:-/usr/local/cuda}/include" /usr/local/cuda-13.0/include; do
        [ -e "$folder/crt/host_config.h" ] || continue
        bash "$here/libtorch_shim.sh" "$LIBTORCH" "$folder"
        return
    done
    fail "CUDA's headers are not in ${CUDA_HOME:-/usr/local/cuda}/include; set CUDA_HOME to a toolkit of CUDA 13"
}

check_machine() {
    [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
        fail "the pinned libtorch is for Linux on x86-64, this is $(uname -s) on $(uname -m);" \
            "set LIBTORCH to the folder of a PyTorch 2.11 (the one with lib/ and include/)"
    command -v python3 >/dev/null || fail "there is no python3; on Debian and Ubuntu: apt install python3 python3-pip"
}

# Sets `pip` to a command that runs pip: python3's own, one on the PATH, or one in a throw-away environment.
find_pip() {
    if python3 -m pip --version >/dev/null 2>&1; then
        pip=(python3 -m pip)
    elif command -v pip3 >/dev/null; then
        pip=(pip3)
    elif python3 -m venv "$work/venv" >/dev/null 2>&1; then
        pip=("$work/venv/bin/python" -m pip)
    else
        fail "python3 has no pip; on Debian and Ubuntu: apt install python3-pip"
    fi
}

# The wheels are chosen by their pinned hashes, so the Python that runs pip does not matter.
download() {
    local platforms=(--platform manylinux2014_x86_64) glibc
    for glibc in {12..28}; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
    mkdir "$work/wheels"
    echo "libtorch: fetching $(sed -n "s,^\(torch==[^ ]*\).*,\1,p" "${requirements[0]}") for $device from PyPI (about $size, once)"
    PIP_REQUIRE_VIRTUALENV=0 "${pip[@]}" download --require-hashes --no-deps --only-binary=:all: --python-version 3.11 \
        --implementation cp --abi cp311 --abi none "${platforms[@]}" --disable-pip-version-check \
        --dest "$work/wheels" "${requirements[@]/#/--requirement=}" ||
        fail "pip could not fetch the wheels (see above); run it again, or set LIBTORCH to a PyTorch 2.11"
}

# Whole or not at all: everything is made in a folder beside the target, which then takes its place.
install() {
    echo "libtorch: unpacking"
    python3 "$here/libtorch_unpack.py" "$work/wheels" "$work/libtorch" "$device"
    cat "${requirements[@]}" >"$work/libtorch/stamp"
    rm -rf "$target"
    mv -T "$work/libtorch" "$target"
    echo "libtorch: ready in $target"
}

case "$device" in cpu | cuda) ;; *) fail "the device must be cpu or cuda, not $device" ;; esac
if [ -n "${LIBTORCH:-}" ]; then
    use_given
    exit 0
fi
add_cuda
if ! cat "${requirements[@]}" | cmp -s - "$target/stamp"; then
    check_machine
    work="$(mktemp -d "$root/.libtorch.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    find_pip
    download
    install
fi
[ "$device" = cpu ] || bash "$here/libtorch_shim.sh" "$target" "$target/include-cuda"
