#!/usr/bin/env bash
# validation.sh QLORA_TESTS: runs vulkan tests under the Khronos validation layer, which must have nothing to say.
set -uo pipefail
export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LOADER_DEBUG=layer
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() { "$@" >"$log" 2>&1; }

run "$1" --backend=vulkan --test-suite=optim
status=$?
if [ $status -eq 77 ]; then
    echo "SKIPPED: no vulkan device"
    exit 77
fi
# The loader names the layers it inserted; without that line nothing was validated.
if ! grep -q "Insert instance layer.*VK_LAYER_KHRONOS_validation\|VK_LAYER_KHRONOS_validation.*(Insert\|Inserted.*VK_LAYER_KHRONOS_validation" "$log"; then
    if ! grep -q "VK_LAYER_KHRONOS_validation" "$log" || ! ls /usr/share/vulkan/explicit_layer.d/*validation* /etc/vulkan/explicit_layer.d/*validation* >/dev/null 2>&1; then
        echo "SKIPPED: VK_LAYER_KHRONOS_validation is not installed (package vulkan-validationlayers)"
        exit 77
    fi
    echo "the loader did not insert the validation layer:"
    grep -i layer "$log" | head -20
    exit 1
fi
unset VK_LOADER_DEBUG
export QLORA_TEST_SHARE=3 # the layer judges how things are used, which fewer values show as well
failed=0
for filter in "--test-suite=optim" "--test-suite=formats" "--test-suite=ops"; do
    run "$1" --backend=vulkan "$filter"
    status=$?
    complaints=$(grep -cE "VUID|UNASSIGNED|Validation (Error|Warning|Performance)" "$log")
    echo "$filter: exit code $status, $complaints complaints of the layer"
    if [ "$complaints" -ne 0 ]; then
        grep -E "VUID|UNASSIGNED|Validation" "$log" | cut -c1-600 | awk '!seen[substr($0, 1, 160)]++' | head -20
        failed=1
    fi
    [ $status -eq 0 ] || { tail -15 "$log"; failed=1; }
done
exit $failed
