package records_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/records"
)

// No manifest that the registry accepts leads to a record that the hold refuses, so tests of
// dead letters of the records sink need an account that refuses valid records. The lexicon of
// io.atcr.hold.layer limits these members:
//
//   - digest and mediaType: 128 bytes. A layer with a longer digest has no record, and a media
//     type that is too long or has other characters is replaced.
//   - size: an integer. A size that is not one is refused by the registry.
//   - manifest and userDid: an at:// URI and a DID. They consist of the owner, which the
//     configuration or the resolver has validated, and of a digest that the registry has
//     computed.
//   - createdAt: a time of the event clock.
//
// This is checked with extreme values of all members that a pusher chooses.
func TestNoManifestIsRefused(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	pick := func(values ...any) any { return values[random.IntN(len(values))] }
	long := strings.Repeat("x", 4096)
	owners := []string{"did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:" + strings.Repeat("a", 2040)}
	layers, odd := 0, 0
	for range 2000 {
		var list []any
		for range random.IntN(5) {
			layer := map[string]any{
				"mediaType": pick("", "a/b", "application/"+long, "a/b;"+long, "a/b; x=\u202e\x00", "\xff\xfe", "é/ü", long, "<b>/x", "application/"+strings.Repeat("y", 116)),
				"digest": pick("", "sha256:"+strings.Repeat("a", 64), "sha384:"+strings.Repeat("b", 96), "sha512:"+strings.Repeat("c", 128),
					"sha256:"+long, "md5:"+strings.Repeat("d", 32), "sha256:"+strings.Repeat("A", 64), long, "\x00", "sha256:"),
				"size":        pick(0, 1, -1, int64(1)<<62, int64(-1)<<63, int64(1)<<53),
				"urls":        pick(nil, []string{"https://example.com"}, []string{}),
				"annotations": pick(nil, map[string]string{long: "\x00\u202e"}),
			}
			list = append(list, layer)
		}
		payload, err := json.Marshal(map[string]any{"schemaVersion": 2, "layers": list})
		if err != nil {
			t.Fatal(err)
		}
		info, err := event.ReadManifest("application/vnd.oci.image.manifest.v1+json", payload)
		if err != nil {
			t.Fatalf("%s can't be read: %v", payload, err)
		}
		planned, skipped := event.LayersOf(&info)
		if layers += len(planned); skipped != nil {
			odd++
		}
		digest := pick("sha256:"+strings.Repeat("0", 64), "sha512:"+strings.Repeat("f", 128)).(string)
		entry := ledger.Entry{First: pick(int64(0), int64(1_800_000_000_000_000), int64(1)<<53-100).(int64), ClockID: uint(random.IntN(1024)), Records: len(planned)}
		if _, err := records.Creates(pick(owners[0], owners[1]).(string), digest, planned, entry); err != nil {
			t.Fatalf("seed %d: a record of %s is refused: %v", seed, payload, err)
		}
	}
	if layers < 100 || odd < 100 {
		t.Errorf("%d records, %d manifests with odd layers", layers, odd)
	}
}
