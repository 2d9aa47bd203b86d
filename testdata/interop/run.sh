#!/usr/bin/env bash
# Tests the program with software by others: pushes with crane, uses the account with the
# official client, verifies its repo and firehose with the official libraries, a
# relay and tap, opens its pages in Chromium, compares its responses with the reference
# PDS, and publishes to an account there.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

(cd testdata/interop && npm ci --ignore-scripts --no-audit --no-fund >"$work/npm.log" 2>&1) || { cat "$work/npm.log"; exit 1; }
# String formats, by the reference validators and by ours.
(cd testdata/interop && node formats.mjs ../../atproto/lexicon/testdata "$work/formats")
REFERENCE_FORMATS=$work/formats go test -count=1 -run TestFormats ./atproto/lexicon
go build -o "$work/tidings" ./cmd/tidings
go build -o "$work/crane" github.com/google/go-containerregistry/cmd/crane

# Below the ephemeral range, so that no connection gets the port meanwhile.
port=$(node -e '(function find() { const s = require("net").createServer().on("error", find).listen(10000 + Math.random() * 20000 | 0, "127.0.0.1", () => { console.log(s.address().port); s.close() }) })()')
host=localhost:$port
cat >"$work/config.yml" <<YAML
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$port", draintimeout: 10s}
middleware:
  repository:
    - name: tidings
      options:
        data: $work/data
        public: ["oss/**"]
        hold: {hostname: "$host", login: true}
        stats: {records: off} # no commits besides those that the scripts expect
        announce:
          {tags: ["*"], collect: 0s, cooldown: 0s, daily_limit: 0, hashtags: [containers, größe], link: "https://example.com/{{.Repository}}",
           template: "🐳 {{link .Name .Link}} ({{.Tag}}) {{link .Link .Link}} {{range .Hashtags}}{{hashtag .}} {{end}}"}
        api: {token_file: $work/token}
YAML
export TIDINGS_TOKEN=interop-token-0123456789
echo "$TIDINGS_TOKEN" >"$work/token"
chmod 600 "$work/token"
"$work/tidings" hold init "$work/config.yml"
password=$("$work/tidings" hold password "$work/config.yml" 2>/dev/null)
"$work/tidings" serve "$work/config.yml" >"$work/log" 2>&1 &
server=$!
for _ in $(seq 300); do (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done

layer() { mkdir -p "$work/$1" && echo "$1" >"$work/$1/file" && tar -C "$work/$1" -czf "$work/$1.tar.gz" file; }
layer one && layer two && layer three
crane=$work/crane
# A Docker schema 2 image, an OCI image with two layers, an index of it, a second tag
# of the first image, and an image in a private repository.
$crane append -f "$work/one.tar.gz" -t "$host/oss/docker:v1"
$crane append --oci-empty-base -f "$work/two.tar.gz" -f "$work/three.tar.gz" -t "$host/oss/oci:v1"
$crane copy "$host/oss/oci:v1" "$host/oss/multi:child"
$crane index append -m "$host/oss/multi:child" -t "$host/oss/multi:v1"
$crane tag "$host/oss/docker:v1" v2
$crane append -f "$work/one.tar.gz" -t "$host/secret/app:v1"

# client runs a script; if it fails, the server's log is printed before its error.
client() { (cd testdata/interop && "$@") >"$work/out" 2>&1 || { cat "$work/log" "$work/out"; exit 1; }; cat "$work/out"; }

did=did:web:localhost%3A$port
client node client.mjs "http://$host" "$did" "$password"
client node proofs.mjs "http://$host" "$did" "$password"
client node check.mjs "http://$host" "$did" io.atcr.hold.layer=3 app.bsky.feed.post=4 app.bsky.actor.profile=1
client node sync.mjs "http://$host" "$did" "$password"

# The pages in a browser, also of the longest names.
if chromium=$(testdata/scripts/need-chromium); then
  name=oss/$(printf 'n%.0s' $(seq 200)) tag=$(printf 't%.0s' $(seq 128))
  $crane copy "$host/oss/oci:v1" "$host/$name:$tag"
  $crane pull "$host/oss/oci:v1" "$work/pulled.tar" # so that the pages have counts
  for _ in $(seq 100); do curl -fs -o "$work/page" "http://$host/tidings/r/$name/$tag" && break; sleep 0.1; done
  client node pages.mjs "http://$host" "$chromium" /tidings/ /tidings/r/oss/oci /tidings/r/oss/oci/v1 /tidings/r/oss/multi/v1 \
    "/tidings/r/$name" "/tidings/r/$name/$tag"
elif [ "$(uname -s)" = Linux ]; then
  exit 1
else
  echo "skipped: the pages in a browser"
fi

if [ "$(uname -sm)" = "Linux x86_64" ]; then
  TIDINGS_INTEROP=1 go test -count=1 ./internal/interop/account ./internal/interop/compare
else
  echo "skipped: the reference PDS runs only on Linux on x86_64"
fi

# A relay and tap, which are in a module of their own and need a C compiler. They run without
# the race detector, which finds races in the relay itself.
(cd internal/interop/relay && export CGO_ENABLED=1 && go vet ./... && go test -vet=off -count=1 ./...)
