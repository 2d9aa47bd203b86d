package notifier

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// publicPushes are the rows that everybody may see, by number, ascending: so the
// time that it takes to read them does not tell how many others lie between.
type publicPushes struct {
	mu   sync.Mutex
	rows []publicPush // the newest, keptPushes or more
	last uint64       // row that was looked at
}

type publicPush struct {
	seq   uint64
	image uint64 // repository and digest, hashed
}

func imageHash(repository, digest string) uint64 {
	h := sha256.Sum256([]byte(repository + "\x00" + digest))
	return binary.BigEndian.Uint64(h[:8])
}

// load reads them from the rows.
func (p *publicPushes) load(n *Notifier) error {
	return eachRow(n.State, pushPrefix, func(key string, val []byte) error {
		seq, part := rowOf(pushPrefix + key)
		if part != 'e' {
			return nil
		}
		var push struct {
			Repository string `json:"repository"`
			Digest     string `json:"digest"`
		}
		if err := json.Unmarshal(val, &push); err != nil {
			return fmt.Errorf("read pushes: %w", err)
		}
		p.add(seq, push.Repository, push.Digest, n.Public)
		return nil
	})
}

// add takes in a row that is about to be written, once. A manifest that is private
// now is not shown any more.
func (p *publicPushes) add(seq uint64, repository, digest string, public func(string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seq <= p.last {
		return
	}
	p.last = seq
	if name, private := strings.CutPrefix(repository, privatePrefix); private {
		image := imageHash(name, digest)
		p.rows = slices.DeleteFunc(p.rows, func(r publicPush) bool { return r.image == image })
	}
	if !public(repository) {
		return
	}
	if len(p.rows) >= 2*keptPushes {
		p.rows = slices.Delete(p.rows, 0, keptPushes)
	}
	p.rows = append(p.rows, publicPush{seq, imageHash(repository, digest)})
}

// newest returns up to limit of their numbers, the newest first.
func (p *publicPushes) newest(limit int) []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var seqs []uint64
	for _, r := range slices.Backward(p.rows[max(0, len(p.rows)-limit):]) {
		seqs = append(seqs, r.seq)
	}
	return seqs
}
