#!/bin/sh
# Installs what is missing, builds what this machine can run, and teaches the bundled model to write dates as ISO 8601.
#   usage: examples/run.sh [--device auto|cpu|cuda|vulkan|ref] [other options of qlora-finetune]
# For Debian 12, Ubuntu 22.04 and later; nothing is installed when everything is there. Options given here win.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD_DIR:-$root/build}
say() { printf '%s\n' "run.sh: $*"; }

# What is missing, by a command or file that its package brings.
packages=
want() { packages="$packages $1"; }
command -v g++ > /dev/null || want g++
command -v cmake > /dev/null || want cmake
command -v make > /dev/null || want make
[ -f /usr/include/CLI/CLI.hpp ] || [ -f /usr/local/include/CLI/CLI.hpp ] || want libcli11-dev
[ -f /usr/include/nlohmann/json.hpp ] || [ -f /usr/local/include/nlohmann/json.hpp ] || want nlohmann-json3-dev
[ -f /usr/include/pcre2.h ] || [ -f /usr/local/include/pcre2.h ] || want libpcre2-dev

# Backends besides the CPU: CUDA where there are an NVIDIA GPU and its compiler, else Vulkan where there is any GPU.
cuda=OFF vulkan=OFF architecture=
nvcc=$(command -v nvcc || true)
[ -n "$nvcc" ] || [ ! -x /usr/local/cuda/bin/nvcc ] || nvcc=/usr/local/cuda/bin/nvcc
gpu=none
if nvidia-smi -L > /dev/null 2>&1; then gpu=nvidia
elif ls /dev/dri/renderD* > /dev/null 2>&1; then gpu=other
fi
if [ "$gpu" = nvidia ] && [ -n "$nvcc" ]; then
    cuda=ON
    architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')
elif [ "$gpu" != none ]; then
    vulkan=ON
    [ -f /usr/include/vulkan/vulkan.h ] || want libvulkan-dev
    command -v glslangValidator > /dev/null || want glslang-tools
    [ "$gpu" = nvidia ] || [ -d /usr/share/vulkan/icd.d ] || want mesa-vulkan-drivers
    [ "$gpu" = other ] || say "no CUDA compiler here: using Vulkan; with the CUDA toolkit this GPU is faster"
fi

if [ -n "$packages" ]; then
    say "installing$packages"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo > /dev/null || { say "error: missing, and no sudo to install them:$packages" >&2; exit 2; }
        sudo=sudo
    fi
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # one word a package
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages > /dev/null
fi

say "building in $build (CUDA $cuda, Vulkan $vulkan)"
mkdir -p "$build"
{
    cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DQLORA_EXAMPLES=ON -DQLORA_CUDA=$cuda \
        -DQLORA_VULKAN=$vulkan ${architecture:+"-DQLORA_CUDA_ARCHITECTURES=$architecture"} \
        ${architecture:+"-DCMAKE_CUDA_COMPILER=$nvcc"} &&
        cmake --build "$build" --target qlora-finetune --parallel "$(nproc)"
} > "$build/run.log" 2>&1 || {
    tail -n 30 "$build/run.log" >&2
    say "error: the build failed; all of its output is in $build/run.log" >&2
    exit 2
}

say "fine-tuning"
data=$root/examples/data
exec "$build/examples/finetune/qlora-finetune" --model "$data/demo-base-f16.gguf" --data "$data/dates_train.jsonl" \
    --eval-data "$data/dates_test.jsonl" --out "$build/dates-adapter.gguf" --exact-match 200 --samples 3 \
    --rank 16 --alpha 32 --learning-rate 3e-3 --warmup 10 --batch 16 --steps 160 "$@"
