package pushrow

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"github.com/tidings-dev/tidings/notifier/event"
)

// Public are the rows of pushes that everybody may see, in ascending order: so the
// time that it takes to read them does not reveal how many others are in between.
type Public struct {
	mu   sync.Mutex
	rows []publicRow // the newest, Kept or more
	last uint64      // the last row that was added, public or not
}

type publicRow struct {
	seq   uint64
	image uint64 // hash of repository and digest
}

func imageHash(repository, digest string) uint64 {
	h := sha256.Sum256([]byte(repository + "\x00" + digest))
	return binary.BigEndian.Uint64(h[:8])
}

// Add adds a row that is about to be written. Repeated rows are ignored. A push that
// makes an image private hides the image's earlier rows.
func (p *Public) Add(row *Push, public func(string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if row.Seq <= p.last {
		return
	}
	p.last = row.Seq
	if name, private := strings.CutPrefix(row.Repository, event.PrivatePrefix); private {
		image := imageHash(name, row.Digest)
		p.rows = slices.DeleteFunc(p.rows, func(r publicRow) bool { return r.image == image })
	}
	if !public(row.Repository) {
		return
	}
	if len(p.rows) >= 2*Kept {
		p.rows = slices.Delete(p.rows, 0, Kept)
	}
	p.rows = append(p.rows, publicRow{row.Seq, imageHash(row.Repository, row.Digest)})
}

// Newest returns the sequence numbers of up to limit rows, newest first.
func (p *Public) Newest(limit int) []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var seqs []uint64
	for _, r := range slices.Backward(p.rows[max(0, len(p.rows)-limit):]) {
		seqs = append(seqs, r.seq)
	}
	return seqs
}
