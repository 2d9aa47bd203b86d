package repo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/car"
)

func exportSince(t testing.TB, r *Repo, rev string) map[cid.Cid][]byte {
	t.Helper()
	var car bytes.Buffer
	if err := r.ExportSince(t.Context(), &car, rev); err != nil {
		t.Fatal(err)
	}
	return blocksOf(t, car.Bytes())
}

// eachBlock calls visit with the blocks of a CAR file.
func eachBlock(file []byte, visit func(cid.Cid, []byte) error) error {
	_, err := car.ReadBlocks(bytes.NewReader(file), MaxCommit, visit)
	return err
}

func blocksOf(t testing.TB, car []byte) map[cid.Cid][]byte {
	t.Helper()
	blocks := map[cid.Cid][]byte{}
	if err := eachBlock(car, func(c cid.Cid, data []byte) error {
		if _, twice := blocks[c]; twice || block.CIDOf(data) != c {
			t.Errorf("block %s is duplicate, or its bytes don't match the CID", c)
		}
		blocks[c] = bytes.Clone(data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return blocks
}

// The blocks at a rev and those since then are the whole repo.
func TestExportSince(t *testing.T) {
	t.Parallel()
	r, m := initRepo(t, testConfig(t), profile()), model{}
	m.apply([]Write{profile()})
	fillNotes(t, r, m, 300)
	type state struct {
		rev    string
		blocks map[cid.Cid][]byte
	}
	states := []state{{r.Head().Rev, blocksOf(t, exportCAR(t, r))}}
	for i := range 20 {
		writes := []Write{note(Update, fmt.Sprintf("n%05d", i), fmt.Sprint("changed ", i)), note(Delete, fmt.Sprintf("n%05d", 100+i), ""), note(Create, fmt.Sprint("x", i), fmt.Sprint("new ", i))}
		if i == 7 {
			writes = nil
		}
		apply(t, r, writes...)
		states = append(states, state{r.Head().Rev, blocksOf(t, exportCAR(t, r))})
	}
	if err := r.Notify(t.Context(), Identity, Sync); err != nil {
		t.Fatal(err)
	}
	now := states[len(states)-1].blocks
	for i, s := range states[:len(states)-1] {
		diff := exportSince(t, r, s.rev)
		if len(diff) >= len(now)/2 {
			t.Errorf("state %d: the difference has %d blocks of %d", i, len(diff), len(now))
		}
		for c := range now {
			if _, had := s.blocks[c]; !had && diff[c] == nil {
				t.Errorf("state %d: %s is missing", i, c)
			}
		}
		for c := range diff {
			if now[c] == nil {
				t.Errorf("state %d: %s is not in the repo", i, c)
			}
		}
	}
	head := r.Head().Rev
	for rev, want := range map[string]int{head: 0, "3zzzzzzzzzzzz": 0, "2222222222222": len(now)} {
		if diff := exportSince(t, r, rev); len(diff) != want {
			t.Errorf("since %s: got %d blocks, want %d", rev, len(diff), want)
		}
	}
	// The event log has no commits before an import, so all blocks are sent.
	if _, err := r.Import(t.Context(), bytes.NewReader(exportCAR(t, r)), importLimit); err != nil {
		t.Fatal(err)
	}
	if diff := exportSince(t, r, head); len(diff) != len(now) {
		t.Errorf("since before an import: got %d blocks, want %d", len(diff), len(now))
	}
	imported := r.Head().Rev
	apply(t, r, note(Create, "after", "the import"))
	if diff := exportSince(t, r, imported); len(diff) < 3 || len(diff) >= len(now)/2 {
		t.Errorf("since the import: got %d blocks of %d", len(diff), len(now))
	}
}

func TestCommitPath(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	commits := []cid.Cid{r.Head().Commit}
	for i := range 5 {
		commits = append(commits, apply(t, r, note(Create, fmt.Sprint(i), "1")).Commit)
	}
	unknown := block.CIDOf([]byte("unknown"))
	check := func(earliest, latest cid.Cid, want []cid.Cid) {
		t.Helper()
		path, err := r.CommitPath(t.Context(), earliest, latest)
		if want == nil {
			if !errors.Is(err, ErrNotKept) {
				t.Errorf("got %v, %v, want ErrNotKept", path, err)
			}
			return
		}
		var got []cid.Cid
		for _, c := range path {
			got = append(got, c.CID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	check(cid.Undef, cid.Undef, commits)
	check(commits[0], cid.Undef, commits[1:])
	check(commits[2], commits[4], commits[3:5])
	check(cid.Undef, commits[1], commits[:2])
	check(commits[3], commits[3], []cid.Cid{})
	check(unknown, cid.Undef, nil)
	check(cid.Undef, unknown, nil)
	check(commits[4], commits[2], nil)
	if rev, err := r.RevOf(t.Context(), commits[5]); err != nil || rev != r.Head().Rev {
		t.Errorf("got %s, %v", rev, err)
	}
	if rev, err := r.RevOf(t.Context(), unknown); !errors.Is(err, ErrNotKept) {
		t.Errorf("got %s, %v", rev, err)
	}
	imported, err := r.Import(t.Context(), bytes.NewReader(exportCAR(t, r)), importLimit)
	if err != nil {
		t.Fatal(err)
	}
	check(imported.Commit, cid.Undef, []cid.Cid{})
	check(commits[5], cid.Undef, nil)
	check(cid.Undef, cid.Undef, nil)
}

func TestExportBlocks(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile(), note(Create, "a", "1"))
	head := r.Head()
	all := blocksOf(t, exportCAR(t, r))
	var cids []cid.Cid
	for c := range all {
		cids = append(cids, c)
	}
	var car bytes.Buffer
	if err := r.ExportBlocks(t.Context(), &car, cids, 1<<20); err != nil {
		t.Fatal(err)
	}
	if got := blocksOf(t, car.Bytes()); len(got) != len(all) || !bytes.Equal(got[head.Commit], all[head.Commit]) {
		t.Errorf("got %d blocks, want %d", len(got), len(all))
	}
	apply(t, r, note(Update, "a", "2"))
	car.Reset()
	err := r.ExportBlocks(t.Context(), &car, cids, 1<<20)
	var missing *MissingError
	if !errors.As(err, &missing) || !slices.Contains(missing.CIDs, head.Commit) || !slices.Contains(missing.CIDs, head.Data) || len(missing.CIDs) != 3 || car.Len() > 0 {
		t.Errorf("got %v after %d bytes, want the old commit, root and record", err, car.Len())
	}
}
