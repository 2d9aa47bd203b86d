package delivery

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// missing is what Missing has to return, found by reading each record.
func (a *account) missing(t *testing.T, writes []repo.Write) (indexes []int) {
	t.Helper()
	for i, w := range writes {
		_, _, err := a.repo.Get(w.Collection, w.RKey)
		if (err == nil) != (w.Action == repo.Create) {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

// Many records are read back with pages of a list instead of a call for each.
func TestMissing(t *testing.T) {
	t.Parallel()
	batch := creates(t, MaxWrites)
	descending := slices.Clone(batch)
	slices.Reverse(descending)
	named := slices.Concat(batch[:100], []repo.Write{create(t, "self", "a")})
	unordered := slices.Concat(batch[:20], []repo.Write{create(t, "-", "b")}) // before all TIDs
	for name, test := range map[string]struct {
		writes      []repo.Write
		exist       []repo.Write // in the repo
		lists, gets int          // calls
	}{
		"all applied":                   {batch, batch, 2, 0},
		"none applied":                  {batch, nil, 1, 2},
		"none applied, others before":   {batch[100:], batch[:100], 1, 2},
		"none applied, others after":    {batch[:100], batch[100:], 1, 2},
		"all applied, others after":     {batch[:50], batch, 1, 0},
		"the first half applied":        {batch, batch[:100], 1, 2},
		"the second half applied":       {batch, batch[100:], 1, 2},
		"all but one applied":           {batch, slices.Concat(batch[:77], batch[78:]), 2, 1},
		"a descending clock":            {descending, descending[:70], 1, 2},
		"deletes, none applied":         {deletes(batch), batch, 2, 0},
		"deletes, all applied":          {deletes(batch), nil, 1, 2},
		"deletes, half applied":         {deletes(batch), batch[100:], 1, 2},
		"few records":                   {batch[:listFrom-1], batch[:3], 0, listFrom - 1},
		"as many as a list is used for": {batch[:listFrom], batch[:listFrom], 1, 0},
		"200 other records in between":  {batch, slices.Concat(batch, foreign(t, 200)), 4, 0},
		"900 other records in between":  {batch, slices.Concat(batch, foreign(t, 900)), 11, 0},
		"too many others in between":    {batch, slices.Concat(batch, foreign(t, 2000)), 2 + sparePages + 1, 200},
		"a key that is no TID":          {named, named[:90], 1, 2},
		"a first key that is no TID":    {unordered, unordered[:10], 0, 21},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t)
			a.put(t, test.exist...)
			got, err := NewRepo(a).Missing(t.Context(), test.writes)
			if err != nil {
				t.Fatal(err)
			}
			if want := a.missing(t, test.writes); !slices.Equal(got, want) {
				t.Errorf("missing %v, want %v", got, want)
			}
			if a.lists != test.lists || a.gets != test.gets {
				t.Errorf("%d calls of List and %d of Get, want %d and %d", a.lists, a.gets, test.lists, test.gets)
			}
		})
	}
}

// foreign are n records of others between the first two keys of creates.
func foreign(t *testing.T, n int) (writes []repo.Write) {
	for i := range n {
		writes = append(writes, create(t, key(0)+strconv.Itoa(10_000+i), "foreign "+strconv.Itoa(i)))
	}
	return writes
}

// A create whose key has another record is found, also by a list.
func TestMissingConflict(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, listFrom - 1, MaxWrites} {
		batch := creates(t, n)
		a := newAccount(t)
		a.put(t, create(t, key(n-1), "another"))
		_, err := NewRepo(a).Missing(t.Context(), batch)
		var invalid *repo.WriteError
		if !errors.As(err, &invalid) || !errors.Is(err, ErrConflict) || invalid.Index != n-1 || invalid.Path != path(batch[n-1]) {
			t.Errorf("of %d writes: got %v, want a conflict of the last", n, err)
		}
	}
}

// otherCursors is an account on a PDS that gives the cursors of a list another meaning.
type otherCursors struct {
	*account
	list func(a *account, collection, cursor string, limit int) ([]repo.Record, string, error)
}

func (o otherCursors) List(_ context.Context, collection, cursor string, limit int, _ bool) ([]repo.Record, string, error) {
	o.lists++
	return o.list(o.account, collection, cursor, limit)
}

// A PDS that gives cursors another meaning than record keys is asked for each record.
func TestMissingOtherCursors(t *testing.T) {
	t.Parallel()
	batch := creates(t, 40)
	for name, list := range map[string]func(a *account, collection, cursor string, limit int) ([]repo.Record, string, error){
		"refused": func(*account, string, string, int) ([]repo.Record, string, error) {
			return nil, "", &pds.Error{Status: 400, Name: "InvalidRequest", Message: "invalid cursor", Outcome: pds.Refused}
		},
		"the end": func(*account, string, string, int) ([]repo.Record, string, error) { return nil, "", nil },
		"only descending": func(a *account, collection, cursor string, limit int) ([]repo.Record, string, error) {
			return a.repo.List(collection, cursor, limit, false)
		},
		"ignored, descending": func(a *account, collection, _ string, limit int) ([]repo.Record, string, error) {
			return a.repo.List(collection, "", limit, false)
		},
		"ignored": func(a *account, collection, _ string, limit int) ([]repo.Record, string, error) {
			return a.repo.List(collection, "", limit, true)
		},
		"the last one": func(a *account, collection, _ string, _ int) ([]repo.Record, string, error) {
			page, _, err := a.repo.List(collection, "", 1, false)
			return page, "", err
		},
	} {
		for applied, exist := range map[string][]repo.Write{
			"all": batch, "the first half": batch[:20], "the second half": batch[20:], "none": nil,
			"the first": batch[:1], "all but the first": batch[1:],
		} {
			t.Run(name+", applied "+applied, func(t *testing.T) {
				t.Parallel()
				a := newAccount(t)
				a.put(t, exist...)
				for i := range 150 { // before those of the batch, more than a page
					a.put(t, create(t, syntax.NewTID(firstTID-1000+int64(i), 0).String(), "before"))
				}
				got, err := NewRepo(otherCursors{a, list}).Missing(t.Context(), batch)
				if err != nil {
					t.Fatal(err)
				}
				if want := a.missing(t, batch); !slices.Equal(got, want) {
					t.Errorf("missing %v, want %v", got, want)
				}
				if most := len(batch) + 2; a.gets > most {
					t.Errorf("%d calls of Get, want at most %d", a.gets, most)
				}
			})
		}
	}
}

// A page in descending order shows nothing of the records after the cursor.
func TestMissingDescendingPage(t *testing.T) {
	t.Parallel()
	batch := creates(t, 40)
	a := newAccount(t)
	a.put(t, create(t, syntax.NewTID(firstTID-1000, 0).String(), "before"))
	a.put(t, batch[1:39]...)
	list := func(a *account, collection, cursor string, limit int) ([]repo.Record, string, error) {
		return a.repo.List(collection, cursor, limit, false)
	}
	got, err := NewRepo(otherCursors{a, list}).Missing(t.Context(), batch)
	if err != nil || !slices.Equal(got, []int{0, 39}) {
		t.Errorf("missing %v, want the first and the last: %v", got, err)
	}
}

// An error of reading back is returned; nothing is concluded from it.
func TestMissingFails(t *testing.T) {
	t.Parallel()
	for _, o := range []pds.Outcome{pds.Unknown, pds.Limited, pds.Suspended} {
		a := newAccount(t)
		list := func(*account, string, string, int) ([]repo.Record, string, error) { return nil, "", outcome(o) }
		_, err := NewRepo(otherCursors{a, list}).Missing(t.Context(), creates(t, 20))
		var failed *pds.Error
		if !errors.As(err, &failed) || failed.Outcome != o {
			t.Errorf("%s: got %v", o, err)
		}
	}
}

// Undo returns deletes for what is applied, and leaves records of others alone.
func TestUndo(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	batch := creates(t, 4)
	a.put(t, batch[1], batch[3], create(t, key(2), "another"))
	gone := deletes([]repo.Write{create(t, "self", "")})
	got, err := NewRepo(a).Undo(t.Context(), slices.Concat(batch, gone))
	if err != nil {
		t.Fatal(err)
	}
	want := deletes([]repo.Write{batch[1], batch[3]})
	if !slices.EqualFunc(got, want, func(a, b repo.Write) bool { return a.Action == b.Action && path(a) == path(b) }) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Each visits the records of a collection in ascending order, page by page.
func TestEach(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	a.put(t, creates(t, 1200)...)
	var keys []string
	err := NewRepo(a).Each(t.Context(), collection, func(r repo.Record) error {
		keys = append(keys, r.RKey)
		return nil
	})
	if err != nil || len(keys) != 1200 || !slices.IsSorted(keys) || a.lists != 2 {
		t.Errorf("%d records in %d calls, sorted %t: %v", len(keys), a.lists, slices.IsSorted(keys), err)
	}
}

// An update is missing until the record has its bytes, whatever it has before.
func TestDeliverUpdate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer  answer // to the first call
		applied int    // updates
	}{
		"no fault":               {answer{}, 1},
		"failed and not applied": {answer{err: outcome(pds.Unknown)}, 1},
		"failed yet applied":     {answer{err: outcome(pds.Unknown), applied: true}, 1},
	} {
		a := newAccount(t)
		before, after := create(t, key(0), "before"), create(t, key(0), "after")
		after.Action = repo.Update
		a.put(t, before)
		r := NewRepo(a)
		if missing, err := r.Missing(t.Context(), []repo.Write{after}); err != nil || !slices.Equal(missing, []int{0}) {
			t.Errorf("%s: missing %v, %v, want the update", name, missing, err)
		}
		a.answers = []answer{tc.answer}
		if refused := deliver(t, r, []repo.Write{after}, 2); len(refused) > 0 || a.applied[path(after)] != tc.applied {
			t.Errorf("%s: refused %v, applied %d times", name, refused, a.applied[path(after)])
		}
		if done, err := r.Done(t.Context(), after); !done || err != nil {
			t.Errorf("%s: done %v, %v", name, done, err)
		}
	}
}
