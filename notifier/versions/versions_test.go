package versions

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/state"
)

func open(t *testing.T) (*Store, state.Store) {
	t.Helper()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := state.OnPebble(db)
	return New(s), s
}

func commit(t *testing.T, db state.Store, change func(b *state.Batch) error) {
	t.Helper()
	var b state.Batch
	if err := change(&b); err != nil {
		t.Fatal(err)
	}
	if err := db.Commit(&b, state.NoSync); err != nil {
		t.Fatal(err)
	}
}

var begin = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func version(repository, name, digest string, minute int) Version {
	return Version{Repository: repository, Name: name, Digest: digest, Time: begin.Add(time.Duration(minute) * time.Minute), Post: fmt.Sprint("post", minute)}
}

func names(vs []Version) string {
	var list []string
	for _, v := range vs {
		list = append(list, v.Repository+":"+v.Name+"@"+v.Digest)
	}
	return strings.Join(list, " ")
}

func TestVersions(t *testing.T) {
	t.Parallel()
	s, db := open(t)
	public := func(repository string) bool { return repository != "secret" }
	commit(t, db, func(b *state.Batch) error {
		for _, v := range []Version{
			version("app", "v1", "a", 1), version("app/sub", "v1", "b", 2), version("app", "v2", "c", 3), version("secret", "v9", "d", 4),
			version("app", "v1.0", "a", 5), version("app", "v2", "e", 6), // v2 again, in the same batch
		} {
			if err := s.Put(b, v); err != nil {
				return err
			}
		}
		return nil
	})
	check := func(when, ofApp, newest string) {
		t.Helper()
		of, err := s.OfRepository("app", 10)
		if err != nil || names(of) != ofApp {
			t.Errorf("%s: versions of app: %s, %v; want %s", when, names(of), err, ofApp)
		}
		all, err := s.Newest(10, public)
		if err != nil || names(all) != newest {
			t.Errorf("%s: newest: %s, %v; want %s", when, names(all), err, newest)
		}
	}
	check("after the pushes", "app:v2@e app:v1.0@a app:v1@a", "app:v2@e app:v1.0@a app/sub:v1@b app:v1@a")
	if got, err := s.Newest(2, public); err != nil || names(got) != "app:v2@e app:v1.0@a" {
		t.Errorf("newest 2: %s, %v", names(got), err)
	}
	if got, err := s.OfRepository("app", 1); err != nil || names(got) != "app:v2@e" {
		t.Errorf("newest of app: %s, %v", names(got), err)
	}
	commit(t, db, func(b *state.Batch) error { return s.DeleteImage(b, "app", "a") })
	check("after an image was deleted", "app:v2@e", "app:v2@e app/sub:v1@b")
	if v, ok, err := s.Get("app", "v2"); err != nil || !ok || v.Post != "post6" || !v.Time.Equal(begin.Add(6*time.Minute)) {
		t.Errorf("v2 is %+v, %v, %v", v, ok, err)
	}
	if _, ok, err := s.Get("app", "v1"); ok || err != nil {
		t.Errorf("v1 after its image was deleted: %v, %v", ok, err)
	}
	rows := 0
	for _, prefix := range []string{state.Versions, state.VersionByTime, state.VersionOfRepo} {
		if err := db.Scan(state.Prefix(prefix), func(_, _ []byte) error { rows++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if rows != 3*3 {
		t.Errorf("%d rows for 3 versions, want 9", rows)
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	s, db := open(t)
	want := map[string]bool{}
	commit(t, db, func(b *state.Batch) error {
		for i := range 25 {
			v := version([]string{"app", "app/sub", "other"}[i%3], fmt.Sprint("v", i), "d", i)
			want[v.Repository+":"+v.Name] = true
			if err := s.Put(b, v); err != nil {
				return err
			}
		}
		return nil
	})
	for _, limit := range []int{1, 5, 24, 25, 26} {
		got := map[string]bool{}
		for position, first := []byte(nil), true; first || position != nil; first = false {
			page, next, err := s.Page(position, limit)
			if err != nil || len(page) > limit || next != nil && len(page) < limit {
				t.Fatalf("limit %d: %d versions, %v", limit, len(page), err)
			}
			for _, v := range page {
				if got[v.Repository+":"+v.Name] {
					t.Errorf("limit %d: %s:%s twice", limit, v.Repository, v.Name)
				}
				got[v.Repository+":"+v.Name] = true
			}
			position = next
		}
		if !maps.Equal(got, want) {
			t.Errorf("limit %d: got %v", limit, got)
		}
	}
}

// Versions that cannot be seen do not make Newest read all rows.
func TestNewestIsBounded(t *testing.T) {
	t.Parallel()
	s, db := open(t)
	commit(t, db, func(b *state.Batch) error {
		for i := range maxExamined + 1 {
			if err := s.Put(b, version("secret", fmt.Sprint(i), "d", i+1)); err != nil {
				return err
			}
		}
		return s.Put(b, version("app", "v1", "a", 0))
	})
	var seen []string
	got, err := s.Newest(10, func(repository string) bool { seen = append(seen, repository); return repository == "app" })
	if err != nil || len(got) != 0 || len(seen) != maxExamined || slices.Contains(seen, "app") {
		t.Errorf("found %s after %d rows, %v", names(got), len(seen), err)
	}
}
