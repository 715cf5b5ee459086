#!/usr/bin/env bash
# golden.sh GOLDEN_CHECK SHARED_DIR FILE BACKEND [OPTION ...]: golden_check on a golden file made elsewhere, skipped when it is not here.
set -euo pipefail
file=${QLORA_SHARED:-$2}/golden/$3
if [ ! -r "$file" ]; then
    echo "SKIPPED: $file is not here; set QLORA_SHARED to the folder of golden files"
    exit 77
fi
exec "$1" "$file" --backend "$4" "${@:5}"
