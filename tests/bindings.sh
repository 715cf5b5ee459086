#!/usr/bin/env bash
# bindings.sh LANGUAGE SOURCE_DIR LIBRARY BUILD_DIR: builds one package of examples/bindings in BUILD_DIR and runs its tests. Go compiles the
# library itself, from the two-file form; the others load the shared LIBRARY.
set -euo pipefail
language=$1 source=$2 library=$3 build=$4/bindings/$1
folder=$source/examples/bindings/$language
need() { command -v "$1" >/dev/null || { echo "SKIPPED: $1 is not installed (Debian: $2)"; exit 77; }; }
case $library in
*.a) [ "$language" = go ] || { echo "SKIPPED: $library is a static library; configure with -DBUILD_SHARED_LIBS=ON"; exit 77; } ;;
esac
rm -rf "$build/package"
mkdir -p "$build"
export LD_LIBRARY_PATH=$(dirname "$library")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
case $language in
python)
    QLORA_LIBRARY=$library PYTHONPATH=$folder PYTHONDONTWRITEBYTECODE=1 python3 "$folder/tests/test_qlora.py"
    ;;
rust)
    need cargo cargo
    cp -r "$folder" "$build/package" # cargo writes a lock file beside the manifest
    cp "$source"/examples/bindings/*.json "$build"
    cd "$build/package"
    QLORA_LIB_DIR=$(dirname "$library") nice cargo test --offline --quiet --target-dir "$build/target"
    ;;
go)
    need go golang-go
    need python3 python3
    cp -r "$folder" "$build/package"
    python3 "$source/examples/amalgamate.py" "$build/package" # as go generate does
    mv "$build/package/qlora_amalgamated.cpp" "$build/package/qlora_amalgamated.inc"
    cd "$build/package"
    unformatted=$(gofmt -l ./*.go)
    [ -z "$unformatted" ] || { echo "gofmt would change $unformatted"; exit 1; }
    GOPATH=$build/path GOCACHE=$build/cache GOFLAGS=-mod=mod GOPROXY=off QLORA_BINDINGS=$source/examples/bindings nice go test ./...
    ;;
csharp)
    need mcs mono-mcs
    need mono mono-runtime
    mcs -unsafe -warn:4 -warnaserror -nowarn:0649 -out:"$build/tests.exe" "$folder"/*.cs
    mono "$build/tests.exe" "$source/examples/bindings"
    ;;
*)
    echo "bindings.sh: no language $language" >&2
    exit 2
    ;;
esac
