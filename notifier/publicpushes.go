package notifier

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// publicPushes are the numbers of the rows that everybody may see, ascending: so
// the time that it takes to read them does not tell how many others lie between.
type publicPushes struct {
	mu   sync.Mutex
	seqs []uint64 // of the newest, keptPushes or more
	last uint64   // row that was looked at
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
		}
		if err := json.Unmarshal(val, &push); err != nil {
			return fmt.Errorf("read pushes: %w", err)
		}
		p.add(seq, n.Public(push.Repository))
		return nil
	})
}

// add takes in a row that is about to be written, once.
func (p *publicPushes) add(seq uint64, public bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seq <= p.last {
		return
	}
	p.last = seq
	if !public {
		return
	}
	if len(p.seqs) >= 2*keptPushes {
		p.seqs = slices.Delete(p.seqs, 0, keptPushes)
	}
	p.seqs = append(p.seqs, seq)
}

// newest returns up to limit of them, the newest first.
func (p *publicPushes) newest(limit int) []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	seqs := slices.Clone(p.seqs[max(0, len(p.seqs)-limit):])
	slices.Reverse(seqs)
	return seqs
}
