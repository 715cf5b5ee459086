#!/usr/bin/env bash
# symbols.sh LIBRARY SYMBOLS.txt: a shared library exports exactly the listed names, and needs nothing that a machine without
# GPU, driver or BLAS may lack.
set -euo pipefail
library=$1
expected=$2
case $library in
*.a) echo "SKIPPED: $library is a static library; configure with -DBUILD_SHARED_LIBS=ON"; exit 77 ;;
esac
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort)
if ! difference=$(diff <(LC_ALL=C sort "$expected") <(echo "$exported")); then
    echo "exported symbols differ from $expected (< listed, > exported):"
    echo "$difference"
    exit 1
fi
needed=$(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
echo "$(echo "$exported" | wc -l) symbols; needs:" $needed
if foreign=$(echo "$needed" | grep -vE '^(libc|libm|libdl|libpthread|librt|libgcc_s|libstdc\+\+|libasan|libubsan|libtsan|ld-linux[^.]*)\.so'); then
    echo "and these, which a machine without GPU may not have:" $foreign
    exit 1
fi
