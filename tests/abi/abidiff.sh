#!/usr/bin/env bash
# abidiff.sh SOURCE_DIR [--write]: libabigail compares the interface of today's library with tests/abi/qlora_0_1.abi. All public
# functions and structs are in qlora.cpp, so that file alone is compiled, with debug information. --write makes a new baseline.
set -euo pipefail
cd "$1"
for tool in abidw abidiff g++; do
    command -v $tool >/dev/null || { echo "SKIPPED: $tool is not installed (Debian: abigail-tools)"; exit 77; }
done
[ "$(uname -m)" = x86_64 ] || { echo "SKIPPED: the baseline is of x86_64"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
g++ -g -O0 -std=c++17 -fPIC -shared -fvisibility=hidden -DQLORA_SHARED -DQLORA_BUILD -I. qlora.cpp -Wl,--version-script=backends/exports.map -Wl,-soname,libqlora.so -o "$folder/libqlora.so"
abidw --no-corpus-path --no-comp-dir-path --no-show-locs --drop-private-types --header-file "$PWD/qlora.h" --out-file "$folder/today.abi" "$folder/libqlora.so"
if [ "${2:-}" = --write ]; then
    cp "$folder/today.abi" tests/abi/qlora_0_1.abi
    exit 0
fi
status=0
abidiff --suppressions tests/abi/suppressions.ini --no-added-syms tests/abi/qlora_0_1.abi "$folder/today.abi" || status=$?
if [ $status != 0 ]; then
    echo "the interface differs from tests/abi/qlora_0_1.abi (abidiff answered $status)"
    exit 1
fi
echo "$(grep -c '<elf-symbol ' "$folder/today.abi") functions, compatible with 0.1"
