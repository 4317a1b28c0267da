#!/bin/sh
# Usage: inert.sh LIBRARY. Programs without ggml, and their children, run unharmed and silently
# under the preload, whatever HATA_OPTIONS says.
set -eu
check() { # OPTIONS
  said=$(HATA_OPTIONS=$1 LD_PRELOAD=$library sh -c 'echo one; sh -c "expr 1 + 1"; ls / >/dev/null' 2>&1)
  if [ "$said" != "$(printf 'one\n2')" ]; then
    echo "with HATA_OPTIONS='$1' the programs said: $said"
    exit 1
  fi
}
library=$1
check ""
check "stats=1 verify=1 budget=32"
check "budget=abc"
code=0
said=$(HATA_OPTIONS="probe=1" LD_PRELOAD=$library ls / 2>&1) || code=$?
if [ "$code" != 2 ] || [ "$said" != "hata: no ggml is loaded" ]; then
  echo "the probe of a program without ggml gave $code: $said"
  exit 1
fi
echo "inert"
