#!/usr/bin/env bash
# Says what is missing on this machine to build Easel, before anything is fetched or compiled. Run by `make libtorch`.
set -euo pipefail

root="$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
rust_needed="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")"

fail() {
    printf 'easel: %s\n' "$@" >&2
    exit 1
}

command -v cargo >/dev/null && command -v rustc >/dev/null || fail "cargo is not on the PATH; Rust comes from https://rustup.rs"
rust="$(rustc --version | awk '{print $2}')"
[ "$(printf '%s\n' "$rust_needed" "${rust%%-*}" | sort -V | head -n 1)" = "$rust_needed" ] ||
    fail "Easel needs Rust $rust_needed or newer, this is $rust; \`rustup update stable\` brings it"
command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null ||
    fail "there is no C++ compiler (${CXX:-c++}); on Debian and Ubuntu: apt install g++"
