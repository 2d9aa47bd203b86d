#!/usr/bin/env bash
# Compares a registry with Tidings to the same registry without it.
#
#   testdata/bench/run.sh            all rows, under 6 minutes
#   testdata/bench/run.sh -quick     a first impression, under 1 minute
#   testdata/bench/run.sh -h         everything else
#
# Times are without the builds, which take minutes when nothing is cached.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT

go build -o "$bin/" ./testdata/bench ./testdata/bench/plain ./cmd/tidings
# A binary that was linked a moment ago is in the page cache in large pieces, and
# counts in full as a process' memory. Read from disk, as after a boot, only what
# is used does.
sync "$bin"/* 2>/dev/null || sync
for file in "$bin"/*; do dd if="$file" iflag=nocache count=0 status=none 2>/dev/null || true; done

"$bin/bench" -plain "$bin/plain" -tidings "$bin/tidings" "$@"
