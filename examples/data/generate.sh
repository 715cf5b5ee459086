#!/bin/sh
# Makes the bundled instruction set: dates as people write them, to be rewritten as ISO 8601. The base model knows
# months but not this format. Every date appears in one of the two files only, in one spelling. The same output on every
# machine: own random numbers, whole numbers only.
#   usage: examples/data/generate.sh            writes dates_train.jsonl and dates_test.jsonl beside this script
set -eu
cd "$(dirname "$0")"
LC_ALL=C awk -v train_rows=4000 -v test_rows=200 '
function next_below(bound) {          # Park and Miller, 1988: products stay below 2^53
  state = (state * 16807) % 2147483647
  return int(state / 2147483647 * bound)
}
function ordinal(day) {
  if (day % 100 >= 11 && day % 100 <= 13) return day "th"
  if (day % 10 == 1) return day "st"
  if (day % 10 == 2) return day "nd"
  if (day % 10 == 3) return day "rd"
  return day "th"
}
function spelled(day, month, year, style) {
  if (style == 0) return day " " names[month] " " year
  if (style == 1) return names[month] " " day ", " year
  if (style == 2) return "the " ordinal(day) " of " names[month] ", " year
  if (style == 3) return day " " substr(names[month], 1, 3) " " year
  return substr(names[month], 1, 3) " " day ", " year
}
BEGIN {
  split("January February March April May June July August September October November December", names, " ")
  split("31 28 31 30 31 30 31 31 30 31 30 31", days, " ")
  state = 20210307
  made = 0
  while (made < train_rows + test_rows) {
    year = 1800 + next_below(300)
    month = 1 + next_below(12)
    day = 1 + next_below(days[month])
    date = sprintf("%04d-%02d-%02d", year, month, day)
    if (date in seen) continue
    seen[date] = 1
    file = made < test_rows ? "dates_test.jsonl" : "dates_train.jsonl"
    printf "{\"prompt\": \"Date: %s\\nISO:\\n\", \"answer\": \"%s\"}\n", spelled(day, month, year, next_below(5)), date > file
    made++
  }
}'
