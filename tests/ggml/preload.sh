#!/bin/sh
# Usage: preload.sh LIBRARY LLAMA_BIN MODEL. Unmodified programs of llama.cpp under the preload.
set -eu
library=$1 bin=$2 model=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
  echo "FAILED: $1"
  cat "$folder/err"
  exit 1
}
number() { # WORDS_BEFORE: the number that stands before them on stderr
  sed -n "s/.*[^0-9]\([0-9][0-9]*\) $1.*/\1/p" "$folder/err" | tail -n 1
}
at_least() { # WHAT N
  n=$(number "$1")
  [ -n "$n" ] && [ "$n" -ge "$2" ] || fail "'$1' is '$n', want at least $2"
  echo "$1: $n"
}
run() { # OPTIONS PROGRAM ARGS...
  options=$1
  shift
  HATA_OPTIONS=$options LD_PRELOAD=$library "$bin/$@" >"$folder/out" 2>"$folder/err" </dev/null ||
    fail "$*: exit $?"
}

i=0
while [ $i -lt 80 ]; do
  printf 'id %03d%03d%03d = %03d%03d%03d\n' $((i * 7 % 1000)) $((i * 37 % 1000)) \
    $((i * 91 % 1000)) $((i * 53 % 1000)) $((i * 29 % 1000)) $((i * 67 % 1000))
  i=$((i + 1))
done >"$folder/prompt"
printf 'find 140740820 =' >>"$folder/prompt"  # the line of i = 20
complete() { # OPTIONS TOKENS
  run "$1" llama-completion -m "$model" -f "$folder/prompt" -n "$2" -c 4096 -t 2 -no-cnv --temp 0
}

echo "-- the self-test in the place of the program"
run "probe=1" llama-completion
grep -q "hata: the self-test passed" "$folder/err" || fail "no word of the self-test"

echo "-- llama-completion, sparse"
complete "verify=1 stats=1 budget=32 min-ctx=64 dense-layers=0" 40
at_least "sparse and" 300
at_least "cells checked" 200000
[ "$(number 'STALE CODES')" = 0 ] || fail "stale codes"

# No further than the answer: what a small model says after it hangs on the last bit of a sum.
echo "-- llama-completion, dense by our exact path and by ggml: the same answer"
complete "method=ggml stats=1" 4
grep -q "060580340" "$folder/out" || fail "the answer is not 060580340"
cp "$folder/out" "$folder/ggml"
grep -q "hata: off: the method is ggml" "$folder/err" && fail "hands off, but a self-test was run"
complete "method=dense stats=1" 4
cmp "$folder/out" "$folder/ggml" || fail "the answers differ"
at_least "dense steps" 24

echo "-- llama-bench"
run "verify=1 stats=1 budget=32 min-ctx=64 dense-layers=0" \
  llama-bench -m "$model" -t 2 -p 0 -n 16 -d 512 -r 1 -fa 1
at_least "sparse and" 100
[ "$(number 'STALE CODES')" = 0 ] || fail "stale codes"

echo "-- flash attention off, a quantised cache: dense, and said once"
run "stats=1 min-ctx=64" llama-bench -m "$model" -t 2 -p 0 -n 8 -d 128 -r 1 -fa 0
[ "$(grep -c 'flash attention is off' "$folder/err")" = 1 ] || fail "no line on flash attention"
run "stats=1 min-ctx=64" llama-bench -m "$model" -t 2 -p 0 -n 8 -d 128 -r 1 -fa 1 -ctk q8_0
[ "$(grep -c 'layers with this cache type stay dense' "$folder/err")" = 1 ] ||
  fail "no line on the cache type"

echo "-- wrong options: one line, and dense"
complete "budget=abc" 4
[ "$(grep -c "^hata: HATA_OPTIONS: budget 'abc'" "$folder/err")" = 1 ] || fail "no line on the option"
