package relay

import (
	"bytes"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// line formats a #commit of the hold's event log.
func line(t *testing.T, e repo.Event) string {
	t.Helper()
	body, ok := bytes.CutPrefix(e.Frame, []byte("\xa2atg#commitbop\x01"))
	if !ok {
		t.Fatalf("unexpected frame %.30q", e.Frame)
	}
	var msg comatproto.SyncSubscribeRepos_Commit
	if err := msg.UnmarshalCBOR(bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	return "#commit " + msg.Rev + " " + msg.Commit.String()
}
