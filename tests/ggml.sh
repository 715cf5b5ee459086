#!/usr/bin/env bash
# ggml.sh SOURCE_DIR LIBRARY BUILD_DIR [GGML_SOURCE]: examples/ggml against an unmodified ggml: the sources given, or those that a source
# package on PyPI carries. A ggml trainer gives the same losses with and without our backend, which it does not know; a trainer over
# ggml's memory has the gradients of ref.
set -euo pipefail
source=$1 library=$2 build=$3/ggml ggml=${4:-}
package=llama-cpp-python version=0.3.36
case $library in
*.a) echo "SKIPPED: $library is a static library; configure with -DBUILD_SHARED_LIBS=ON"; exit 77 ;;
esac
mkdir -p "$build"
cd "$build"
if [ -z "$ggml" ]; then
    ggml=$build/source
    if [ ! -e "$ggml/CMakeLists.txt" ]; then
        rm -rf download "$ggml"
        if ! python3 -m pip download -q --no-deps --no-binary :all: "$package==$version" -d download 2>pip.log; then
            tail -1 pip.log
            echo "SKIPPED: $package $version cannot be had from PyPI; set QLORA_GGML_SOURCE to the folder ggml of llama.cpp"
            exit 77
        fi
        mkdir "$ggml"
        tar -xzf download/*.tar.gz -C "$ggml" --strip-components=4 --wildcards '*/vendor/llama.cpp/ggml/*'
        rm -rf download
    fi
fi
quiet() { "$@" >log 2>&1 || { cat log; exit 1; }; }
quiet cmake --install "$(dirname "$library")" --prefix "$build/qlora"
quiet cmake -S "$source/examples/ggml" -B out -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O2 -DCMAKE_CXX_FLAGS=-O2 -DCMAKE_PREFIX_PATH="$build/qlora" -DGGML_SOURCE="$ggml"
quiet cmake --build out --parallel "$(nproc)"

for type in q4_0 q8_0 q4_K q6_K; do
    alone=$(out/host 10 $type 1 2>alone.log)
    with=$(GGML_BACKEND_PATH=$build/out/libggml-qlora.so out/host 10 $type 1 2>with.log)
    splits=$(echo "$with" | awk '$1 == "splits" { print $2 }')
    [ "$splits" -gt 1 ] || { cat with.log; echo "FAILED  $type: nothing was claimed"; exit 1; }
    # ggml rounds activations to 8 bits and qlora does not: the losses agree to that.
    paste <(echo "$alone") <(echo "$with") | awk -v type=$type '
        $1 == "loss" { d = ($4 - $2) / $2; if (d < 0) d = -d; if (d > worst) worst = d; last = $4; steps++ }
        $1 == "seconds" { printf "%s: %d losses to %.6f agree within %.1e; 10 steps take ggml %.3f s, with qlora %.3f s\n", type, steps, last, worst, $2, $4 }
        END { exit !(steps == 10 && worst < 1e-3) }' || { echo "FAILED  $type: the losses differ"; exit 1; }
done
tolerance=$(sed -n 's/^QLORA_OPERATION(LINEAR_GRAD,[^,]*,[^,]*,[^,]*,[^,]*, *\([^,]*\),.*/\1/p' "$source/backends/ops.def")
out/views "$tolerance"
