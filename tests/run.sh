#!/usr/bin/env bash
# Builds and runs all tests on a fresh Debian 12 or Ubuntu. Ends with ctest's summary.
#
#   tests/run.sh [--backend ref|cpu|cuda|vulkan] [--sanitize] [--tsan] [--no-install] [--cmake -DOPTION=VALUE]
#
# --backend  only tests of this backend      --sanitize  address and undefined-behaviour sanitizers, ref and cpu
# --tsan     thread sanitizer, ref and cpu   --no-install  takes the machine as it is
# nvcc is used when it is there, for the GPU of this machine, or for one architecture when there is none.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
backend='' sanitizer='' install=yes
options=()
while [ $# -gt 0 ]; do
    case $1 in
    --backend) backend=$2; shift ;;
    --sanitize) sanitizer=address,undefined ;;
    --tsan) sanitizer=thread ;;
    --no-install) install=no ;;
    --cmake) options+=("$2"); shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done

packages="g++ gcc cmake ninja-build make binutils python3 python3-pip abigail-tools rustc cargo golang-go mono-mcs mono-runtime doctest-dev nlohmann-json3-dev libcli11-dev libpcre2-dev glslang-tools libvulkan-dev mesa-vulkan-drivers vulkan-validationlayers"
missing=$(for package in $packages; do dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok' || echo "$package"; done)
if [ -n "$missing" ] && [ $install = yes ]; then
    if ! command -v apt-get >/dev/null; then
        echo "tests/run.sh: install these first, this machine has no apt-get:" $missing >&2
        exit 1
    fi
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    echo "installing" $missing
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
fi
[ -d /usr/local/cuda/bin ] && PATH=$PATH:/usr/local/cuda/bin

build=$root/build/test
options+=(-DQLORA_DEV=ON -DQLORA_EXAMPLES=ON)
if [ -n "$sanitizer" ]; then
    # Static, and without GPU backends: their drivers are not ours to sanitize.
    build=$root/build/test-${sanitizer%%,*}
    options+=(-DQLORA_SANITIZE="$sanitizer" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DQLORA_CUDA=OFF -DQLORA_VULKAN=OFF -DBUILD_SHARED_LIBS=OFF)
    options+=("-DQLORA_TEST_BACKENDS=${backend:-ref;cpu}")
else
    # The shared library, so that its exports are tested as well.
    architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d . || true)
    options+=(-DBUILD_SHARED_LIBS=ON "-DQLORA_CUDA_ARCHITECTURES=${architecture:-90}" "-DQLORA_TEST_BACKENDS=${backend:-ref;cpu;cuda;vulkan}")
fi
# Ninja compiles tests while the library waits for its last file; a folder that was made with something else keeps that.
[ -e "$build/CMakeCache.txt" ] || ! command -v ninja >/dev/null || options+=(-G Ninja)
jobs=$(nproc)
cmake -S "$root" -B "$build" "${options[@]}"
cmake --build "$build" --parallel "$jobs"

# One thread per software-rendered Vulkan device: tests run side by side, and results do not hang on it.
export LP_NUM_THREADS=1
# What Mesa compiles for that device, which is most of the time of these tests, serves all test programs and the next run.
export MESA_SHADER_CACHE_DIR=$build/shaders
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1} UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
cd "$build"
status=0
ctest --output-on-failure --parallel "$jobs" 2>&1 | tee ctest.log || status=$?
grep 'tests passed' ctest.log || true # the summary once more, below the list of what was skipped
exit $status
