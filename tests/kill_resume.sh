#!/bin/bash
# Kills a training run at random moments (SIGKILL), resumes it, and compares the adapter with that of a run without pauses, byte
# for byte; then interrupts one (SIGINT), which must save its step and answer 130.
#   usage: kill_resume.sh PATH/TO/qlora-finetune FOLDER_OF_EXAMPLES_DATA     QLORA_TEST_ALL=1: twenty kills in place of three; QLORA_DEVICE: a device in place of cpu
set -euo pipefail
program=$1 data=$2 device=${QLORA_DEVICE:-cpu}
kills=3
[ "${QLORA_TEST_ALL:-0}" = 0 ] || kills=20
RANDOM=${QLORA_SEED:-20}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { printf 'kill_resume: FAILED: %s\n' "$*" >&2; exit 1; }

# Validation and dropout as well: their memory has to come back.
train() {
    $program train --model "$data/demo-base-f16.gguf" --data "$data/dates_train.jsonl" --eval-data "$data/dates_test.jsonl" \
        --eval-rows 4 --samples 0 --steps 24 --batch 1 --sequence 64 --device "$device" --threads 1 --optimizer adamw8bit \
        --learning-rate 3e-3 --lora-dropout 0.1 --lora-plus 4 --rslora --targets q,v,down --save-every 3 --keep 2 --eval-every 8 --metrics "$work/metrics.json" "$@"
}
begin=$(date +%s%3N)
train --run-dir "$work/whole" > "$work/log" || fail "the run without a pause: $(cat "$work/log")"
took=$(($(date +%s%3N) - begin))

same() {
    cmp "$work/whole/adapter.gguf" "$1/adapter.gguf" || fail "resumed run $1 has another adapter"
    # Every step once, and every validation.
    for key in loss validation_loss; do
        for folder in "$work/whole" "$1"; do
            grep "\"$key\":" "$folder/metrics.jsonl" | sed "s/.*\"$key\":\([^,}]*\).*\"step\":\([0-9]*\).*/\2 \1/; s/.*\"step\":\([0-9]*\),\"$key\":\([^,}]*\).*/\1 \2/"
        done | sort | uniq -c | awk '$1 != 2 { bad = 1 } END { exit bad }' || fail "metrics.jsonl of $1 has other steps ($key)"
    done
}
# Its process becomes the program, so that a signal to it is one to the program.
go_on() {
    program="exec $program"
    if [ -e "$1/config.toml" ]; then $program train --resume "$1"; fi
    rm -rf "$1"
    train --run-dir "$1"
}

run=0 killed=0
while [ "$killed" -lt "$kills" ]; do
    go_on "$work/run$run" > "$work/log" 2>&1 &
    pid=$!
    sleep "$(awk -v ms=$((RANDOM % took)) 'BEGIN { print ms / 1000 }')"
    kill -9 $pid 2> /dev/null && killed=$((killed + 1))
    if wait $pid 2> /dev/null; then
        same "$work/run$run"
        run=$((run + 1))
    fi
done
(go_on "$work/run$run") > "$work/log" 2>&1 || fail "resuming: $(cat "$work/log")"
same "$work/run$run"

# Another flag is refused, by name.
if "$program" train --resume "$work/whole" --learning-rate 1 > "$work/log" 2>&1; then fail "another learning rate was taken"; fi
grep -q -- '--learning-rate 0.003' "$work/log" || fail "no word of the flag that differs: $(cat "$work/log")"

# The folder's config.toml repeats the run; a name that is none is refused, with the nearest.
"$program" train --config "$work/whole/config.toml" --run-dir "$work/again" > "$work/log" 2>&1 || fail "config.toml: $(cat "$work/log")"
same "$work/again"
printf 'model = "x"\nlearning-rat = 1e-3\n' > "$work/wrong.toml"
if "$program" train --config "$work/wrong.toml" > "$work/log" 2>&1; then fail "a wrong name was taken"; fi
grep -q "wrong.toml:2: there is no option 'learning-rat'; did you mean learning-rate?" "$work/log" || fail "$(cat "$work/log")"

(program="exec $program" && train --run-dir "$work/interrupted" --steps 1000) > "$work/log" 2>&1 &
pid=$!
until grep -q '^step ' "$work/log"; do kill -0 $pid && sleep 0.05; done
kill -INT $pid
code=0
wait $pid || code=$?
[ "$code" = 130 ] || fail "SIGINT: exit code $code: $(cat "$work/log")"
ls -d "$work"/interrupted/checkpoints/step-* > /dev/null || fail "SIGINT: no checkpoint"
echo "kill_resume: $killed kills, $run runs that came to their end between them; adapters are equal"
