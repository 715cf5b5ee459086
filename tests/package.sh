#!/usr/bin/env bash
# package.sh KIND SOURCE_DIR BUILD_DIR: the library as its users take it.
#   installed      BUILD_DIR installed and moved elsewhere: find_package, pkg-config, SONAME
#   subdirectory   add_subdirectory of a project in C: nothing of ours leaks into it; how long it takes, what it adds to a program;
#                  then the static library, installed: find_package and pkg-config --static
#   one_line       the g++ line of README.md as it stands there
#   two_contexts   the library and two contexts in two threads under ThreadSanitizer
#   amalgamation   the two-file form, against the golden bytes and the binary interface
set -euo pipefail
kind=$1 source=$(cd "$2" && pwd) build=$(cd "$3" && pwd)
work=$build/package/$kind
rm -rf "$work"
mkdir -p "$work"
cd "$work"
fail() { echo "FAILED  $*"; exit 1; }
quiet() { "$@" >log 2>&1 || { cat log; fail "$*"; }; }
jobs=$(nproc)

# A project that knows the library by find_package only.
consume() { # PREFIX
    mkdir -p "$work/consumer"
    cat >"$work/consumer/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.18)
project(consumer C CXX)
find_package(qlora 0.1 REQUIRED)
add_executable(consumer $source/examples/quantize.c)
set_target_properties(consumer PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF)
target_link_libraries(consumer PRIVATE qlora::qlora m)
add_executable(hpp hpp.cpp)
target_link_libraries(hpp PRIVATE qlora::qlora)
target_compile_features(hpp PRIVATE cxx_std_17)
END
    printf '#include <qlora.hpp>\nint main() { return qlora::Context(QLORA_BACKEND_CPU).query().backend == QLORA_BACKEND_CPU ? 0 : 1; }\n' >"$work/consumer/hpp.cpp"
    quiet cmake -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$1"
    quiet cmake --build "$work/consumer/build"
    "$work/consumer/build/consumer"
    "$work/consumer/build/hpp"
}
install_moved() { # BUILD_DIR: installs, and moves what was installed
    quiet cmake --install "$1" --prefix "$work/first"
    mv "$work/first" "$work/prefix"
    if grep -rl "$work/first" "$work/prefix" --include='*.pc' --include='*.cmake'; then fail "the files above know where they were installed first"; fi
    export PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name qlora.pc)")
}

case $kind in
installed)
    [ -e "$build/../libqlora.so" ] || { echo "SKIPPED: no shared library in $build/..; configure with -DBUILD_SHARED_LIBS=ON"; exit 77; }
    install_moved "$build/.."
    consume "$work/prefix"
    cc -std=c99 "$source/examples/quantize.c" $(pkg-config --cflags --libs qlora) -lm -o by_pkg_config
    LD_LIBRARY_PATH=$(pkg-config --variable=libdir qlora) ./by_pkg_config
    soname=$(readelf -d "$(find "$work/prefix" -name 'libqlora.so')" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
    version=$(pkg-config --modversion qlora)
    [ "$soname" = "libqlora.so.${version%.*}" ] || fail "SONAME is $soname, the version $version"
    ;;
subdirectory)
    mkdir host
    cat >host/CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.18)
project(host C CXX)
get_cmake_property(before VARIABLES)
add_subdirectory($source qlora)
foreach(name CMAKE_BUILD_TYPE CMAKE_C_FLAGS CMAKE_CXX_FLAGS CMAKE_CXX_STANDARD CMAKE_POSITION_INDEPENDENT_CODE BUILD_SHARED_LIBS)
  if(NOT "\${\${name}}" STREQUAL "" OR "\${name}" STREQUAL "BUILD_SHARED_LIBS" AND DEFINED BUILD_SHARED_LIBS)
    message(FATAL_ERROR "\${name} was not set and is '\${\${name}}'")
  endif()
endforeach()
foreach(property COMPILE_OPTIONS COMPILE_DEFINITIONS INCLUDE_DIRECTORIES LINK_OPTIONS LINK_LIBRARIES TESTS)
  get_directory_property(value \${property})
  if(value)
    message(FATAL_ERROR "\${property} of the parent is '\${value}'")
  endif()
endforeach()
get_cmake_property(after VARIABLES)
list(REMOVE_ITEM after \${before} before)
foreach(name IN LISTS after)
  if(NOT name MATCHES "^(QLORA_|qlora_|CMAKE_|Threads_|_GNUInstallDirs_|FIND_PACKAGE_MESSAGE|THREADS_|value|property|name)")
    message(FATAL_ERROR "the parent has got a variable \${name}")
  endif()
endforeach()
get_target_property(options qlora::qlora INTERFACE_COMPILE_OPTIONS)
get_target_property(definitions qlora::qlora INTERFACE_COMPILE_DEFINITIONS)
if(options OR definitions)
  message(FATAL_ERROR "users of the target get '\${options}' and '\${definitions}'")
endif()
add_executable(with $source/tests/package_all.c)
target_compile_definitions(with PRIVATE WITH_QLORA)
target_link_libraries(with PRIVATE qlora::qlora)
add_executable(without $source/tests/package_all.c)
target_include_directories(without PRIVATE $source)
set_target_properties(without PROPERTIES LINKER_LANGUAGE CXX)
END
    quiet cmake -S host -B out -DQLORA_CUDA=OFF -DQLORA_VULKAN=OFF -DQLORA_INSTALL=ON
    # That was a host without a word on optimization; now as users build.
    sed -i 's/^foreach(name CMAKE_BUILD_TYPE /foreach(name /' host/CMakeLists.txt
    quiet cmake -S host -B out -DCMAKE_BUILD_TYPE=Release
    begin=$(date +%s%N)
    TIMEFORMAT='%U %S'
    { time quiet cmake --build out --parallel "$jobs"; } 2>times || { cat log; exit 1; }
    processor=$(awk 'END { printf "%.0f", $1 + $2 }' times)
    echo "built in $((($(date +%s%N) - begin) / 1000000000)) s on $jobs cores, $processor s of processor time"
    [ "$processor" -le 120 ] || fail "two cores need over 60 s"
    ./out/with
    strip -o with_stripped out/with
    strip -o without_stripped out/without
    added=$(($(stat -c %s with_stripped) - $(stat -c %s without_stripped)))
    echo "adds $((added / 1000)) kB to a stripped program that calls all of it"
    [ "$added" -lt 1500000 ] || fail "that is over 1.5 MB"
    install_moved out
    consume "$work/prefix"
    cc -std=c99 "$source/examples/quantize.c" $(pkg-config --static --cflags --libs qlora) -o by_pkg_config
    ./by_pkg_config
    ;;
one_line)
    line=$(grep -m 1 '^g++ ' "$source/README.md") || fail "README.md has no line that begins with g++"
    echo "$line"
    mkdir run
    (cd run && for entry in "$source"/*; do ln -s "$entry" .; done && eval "$line")
    ;;
two_contexts)
    echo 'int main() { return 0; }' >probe.cpp
    g++ -fsanitize=thread probe.cpp -o probe && ./probe || { echo "SKIPPED: no ThreadSanitizer here"; exit 77; }
    g++ -O1 -g1 -fsanitize=thread -std=c++17 -ffp-contract=off -I"$source" "$source"/tests/two_contexts.cpp "$source"/qlora.cpp "$source"/backends/{ref,cpu,interchange}/*.cpp -lpthread -ldl -o two_contexts
    TSAN_OPTIONS=halt_on_error=1 ./two_contexts
    ;;
amalgamation)
    command -v python3 >/dev/null || { echo "SKIPPED: python3 is not installed"; exit 77; }
    [ -e "$build/../libqlora.so" ] || { echo "SKIPPED: the tests here have the library linked in; configure with -DBUILD_SHARED_LIBS=ON"; exit 77; }
    python3 "$source/examples/amalgamate.py" .
    g++ -O2 -std=c++17 -Wall -Wextra -Werror -fPIC -shared -fvisibility=hidden -DQLORA_SHARED -DQLORA_BUILD qlora_amalgamated.cpp -Wl,-soname,"$(basename "$(realpath "$build/../libqlora.so")" | cut -d. -f1-4)" -lpthread -ldl -o libqlora.so
    # Programs that were linked with the library as usual take this one instead.
    export LD_PRELOAD=$PWD/libqlora.so
    for backend in ref cpu; do
        for file in bnb ggml; do "$build/golden_check" "$source/tests/golden/${file}_small.safetensors" --backend $backend | tail -1; done
        "$build/qlora_tests" --test-suite=abi,optim --backend=$backend | tail -2
    done
    cc -std=c99 "$source/examples/quantize.c" -I. -L. -lqlora -lm -o quantize
    LD_LIBRARY_PATH=. ./quantize
    ;;
*)
    echo "package.sh: no kind $kind" >&2
    exit 2
    ;;
esac
