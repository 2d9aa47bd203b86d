package firehose

import (
	"bytes"
	"strings"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atdata"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	for _, message := range []string{"", "short", strings.Repeat("m", 23), strings.Repeat("m", 24), strings.Repeat("m", 255), strings.Repeat("m", 256), strings.Repeat("m", 60_000)} {
		body, ok := bytes.CutPrefix(errorFrame("FutureCursor", message), []byte("\xa1bop\x20"))
		if !ok {
			t.Fatal("no error header")
		}
		got, err := atdata.UnmarshalCBOR(body)
		if err != nil || got["error"] != "FutureCursor" || got["message"] != message {
			t.Errorf("%d bytes of message: %v", len(message), err)
		}
		if again, err := atdata.MarshalCBOR(got); err != nil || !bytes.Equal(again, body) {
			t.Errorf("%d bytes of message: not canonical, %v", len(message), err)
		}
		body, ok = bytes.CutPrefix(infoFrame("OutdatedCursor", message), []byte("\xa2ate#infobop\x01"))
		if !ok {
			t.Fatal("no info header")
		}
		var info comatproto.SyncSubscribeRepos_Info
		if err := info.UnmarshalCBOR(bytes.NewReader(body)); err != nil || info.Name != "OutdatedCursor" || *info.Message != message {
			t.Errorf("%d bytes of message: %v", len(message), err)
		}
	}
}
