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
"$bin/bench" -plain "$bin/plain" -tidings "$bin/tidings" "$@"
