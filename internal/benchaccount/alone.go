package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/interop/pds"
	"github.com/tidings-dev/tidings/internal/plainhttp"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/records"
)

// writeAlone writes n records like those of the registry with one client, in full calls,
// and measures how fast the PDS takes them.
func writeAlone(ctx context.Context, s *pds.Server, n int) (sample, error) {
	access, _, err := s.Login(ctx)
	if err != nil {
		return sample{}, err
	}
	calls := max(1, n/delivery.MaxWrites)
	inputs, micros := make([][]byte, calls), time.Now().UnixMicro()
	for i := range inputs {
		if inputs[i], err = call(s.DID, micros+int64(i*2*delivery.MaxWrites)); err != nil {
			return sample{}, err
		}
	}
	header := "Authorization: Bearer " + access + "\r\nContent-Type: application/json\r\n"
	conn := plainhttp.New(strings.TrimPrefix(s.URL, "http://"))
	defer conn.Close()
	begun, cpu := time.Now(), s.CPU()
	for _, input := range inputs {
		if ctx.Err() != nil {
			return sample{}, ctx.Err()
		}
		if _, _, err := conn.Ask(http.MethodPost, "/xrpc/com.atproto.repo.applyWrites", header, input, http.StatusOK); err != nil {
			return sample{}, err
		}
	}
	return sample{records: calls * delivery.MaxWrites, duration: time.Since(begun), cpu: s.CPU() - cpu}, nil
}

// call returns the input of a call that creates the records of as many images as fit. Their
// keys begin at a time in microseconds.
func call(did string, micros int64) ([]byte, error) {
	type write struct {
		Type       string          `json:"$type"`
		Collection string          `json:"collection"`
		RKey       string          `json:"rkey"`
		Value      json.RawMessage `json:"value"`
	}
	var writes []write
	for i := range int64(delivery.MaxWrites / layers) {
		creates, err := newRecords(did, micros+i*(layers+1))
		if err != nil {
			return nil, err
		}
		for _, c := range creates {
			value, err := lexicon.ToJSON(c.Record)
			if err != nil {
				return nil, err
			}
			writes = append(writes, write{"com.atproto.repo.applyWrites#create", c.Collection, c.RKey, value})
		}
	}
	return json.Marshal(map[string]any{"repo": did, "writes": writes})
}

// newRecords returns the creates for the layers of a new image.
func newRecords(did string, micros int64) ([]repo.Write, error) {
	list := make([]event.Layer, layers)
	for i := range list {
		list[i] = event.Layer{Digest: newDigest(), Size: rand.Int64N(1 << 30), MediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip"}
	}
	return records.Creates(did, newDigest(), list, ledger.Entry{First: micros, Records: layers})
}

func newDigest() string {
	var hex strings.Builder
	for range 4 {
		fmt.Fprintf(&hex, "%016x", rand.Uint64())
	}
	return "sha256:" + hex.String()
}
