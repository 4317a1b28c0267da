#!/bin/sh
# Usage: exports.sh LIBRARY VERSION_SCRIPT. The library exports the names of the version script, all
# of them and no other, and depends on no ggml and no C++ library.
set -eu
exported=$(nm -D --defined-only "$1" | awk '{print $3}' | sort)
wanted=$(sed -n 's/^ *\(g[a-z0-9_]*\|hata_[a-z0-9_]*\);$/\1/p' "$2" | sort)
if [ "$exported" != "$wanted" ] || [ -z "$wanted" ]; then
  printf 'exported:\n%s\nwanted:\n%s\n' "$exported" "$wanted"
  exit 1
fi
needed=$(readelf -d "$1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p')
if echo "$needed" | grep -E 'ggml|llama|stdc\+\+'; then
  echo "the library must not depend on these"
  exit 1
fi
echo "$(echo "$wanted" | wc -l) names exported; needs:" $needed
