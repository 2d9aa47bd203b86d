package main

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// The options public and owner change between rounds of the workload, and return to
// their first values: the account then has the records of the images in storage,
// with the right owner.
func TestGateRounds(t *testing.T) {
	t.Parallel()
	h := newWorkload(t, newServer(t, settings{}))
	h.expected = append(h.expected, "the options public, owner or owners have changed", "public is empty")
	first, err := os.ReadFile(h.config)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(h.seed, 0))
	gates := []string{`public: ["oss/**"]`, `public: []`, `public: ["oss/a"]`, `public: ["oss/deep/**", "oss/b"]`}
	owners := []string{"", "\n        owner: did:web:other.example", "\n        owner: did:web:third.example"}
	n := rounds(t, 4)
	for round := range n + 1 {
		gate := gates[r.IntN(len(gates))] + owners[r.IntN(len(owners))]
		if round == n {
			gate = gates[0]
		}
		write(t, h.config, strings.Replace(string(first), gates[0], gate, 1))
		h.killRound(uint64(round), time.Duration(100+r.IntN(900))*time.Millisecond)
	}
	h.check(t)
}
