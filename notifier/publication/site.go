package publication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How the record of the publication is written
//
// An account has one for the URL of the registry's pages. Its key is a TID, which a row of
// the state keeps:
//
//  1. Without a row, or with that of another account, the records of the account are
//     listed. The key of one with the same URL is used, otherwise a new one.
//  2. The row is made durable.
//  3. The record is read, and written if it is missing or says something else.
//  4. The row notes that the record exists; from then on readers can verify it.
//
// Crash cases:
//
//   - Before 2: nothing was written; the next start does the same.
//   - Between 2 and 4, or if the answer to 3 is lost: the record is read again, and nothing
//     is written if it is there.
//   - The state is lost: the record is found by its URL.
//
// A post names the record with its CID, so posts that were written before a change name an
// earlier version of it.

// A Config configures New.
type Config struct {
	Description
	Account string // DID
	State   state.Store
	Now     func() time.Time // nil: time.Now
}

// A Site is the publication of a registry.
type Site struct {
	cfg Config

	mu      sync.Mutex
	row     row
	current post.Ref // of the record that Publish found or wrote
}

// A row of the state says where the record is.
type row struct {
	Account string `json:"account"`
	RKey    string `json:"rkey"`
	Written bool   `json:"written,omitempty"`
}

// New returns the publication as far as the state knows it.
func New(cfg Config) (*Site, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Site{cfg: cfg}
	val, err := cfg.State.Get(state.Publication)
	if errors.Is(err, state.ErrNotFound) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(val, &s.row)
	}
	if err != nil {
		return nil, fmt.Errorf("read publication: %w", err)
	}
	if s.row.Account != cfg.Account {
		s.row = row{}
	}
	return s, nil
}

// URL is the address of the pages, which the paths of documents follow.
func (s *Site) URL() string { return s.cfg.URL }

// URI is the at:// URI of the record, "" before the account has it.
func (s *Site) URI() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.row.Written {
		return ""
	}
	return s.uri(s.row.RKey)
}

func (s *Site) uri(rkey string) string {
	return "at://" + s.cfg.Account + "/" + lexicon.NSIDPublication + "/" + rkey
}

// Ref identifies the record as Publish found or wrote it; false before that.
func (s *Site) Ref() (post.Ref, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.current.CID != ""
}

// Publish writes the record unless the account has it. It must not be called concurrently.
func (s *Site) Publish(ctx context.Context, account *delivery.Repo) error {
	s.mu.Lock()
	r := s.row
	s.mu.Unlock()
	if r.RKey == "" {
		rkey, err := s.find(ctx, account)
		if err != nil {
			return fmt.Errorf("find publication: %w", err)
		}
		r = row{Account: s.cfg.Account, RKey: rkey}
		if err := s.put(r); err != nil {
			return err
		}
	}
	record, err := s.write(ctx, account, r.RKey)
	if err != nil {
		return fmt.Errorf("write publication: %w", err)
	}
	if !r.Written {
		r.Written = true
		if err := s.put(r); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = post.Ref{URI: s.uri(r.RKey), CID: block.CIDOf(record).String()}
	return nil
}

// errRecord is the error for a record of another program that can't be changed.
var errRecord = errors.New("the record of the account can't be changed")

// Refused reports whether an error of Publish means that the record can't be written, or that
// the account refuses it or its icon.
func Refused(err error) bool {
	if errors.As(err, new(*repo.WriteError)) || errors.Is(err, errRecord) {
		return true
	}
	var failed *pds.Error
	return errors.As(err, &failed) && (failed.Outcome == pds.Refused || failed.Outcome == pds.TooLarge)
}

// put makes the row durable.
func (s *Site) put(r row) error {
	val, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write publication: %w", err)
	}
	var b state.Batch
	b.Set(state.Publication, val)
	if err := s.cfg.State.Commit(&b, state.Sync); err != nil {
		return fmt.Errorf("write publication: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.row = r
	return nil
}

var errFound = errors.New("found")

// find returns the key of the account's publication with the URL, or a new key.
func (s *Site) find(ctx context.Context, account *delivery.Repo) (rkey string, err error) {
	err = account.Each(ctx, lexicon.NSIDPublication, func(r repo.Record) error {
		record, err := lexicon.Unmarshal(r.Value)
		if err != nil {
			return nil // written by another program
		}
		if url, _ := record["url"].(string); strings.TrimSuffix(url, "/") == s.cfg.URL {
			rkey = r.RKey
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return rkey, nil
	}
	return syntax.NewTID(s.cfg.Now().UnixMicro(), uint(rand.IntN(1024))).String(), err
}

// write writes the record with a key unless the account has it, and returns it.
func (s *Site) write(ctx context.Context, account *delivery.Repo, rkey string) ([]byte, error) {
	action := repo.Update
	id, old, err := account.Get(ctx, lexicon.NSIDPublication, rkey)
	var before map[string]any
	switch {
	case errors.Is(err, repo.ErrNotFound):
		action = repo.Create
	case err != nil:
		return nil, err
	default:
		if before, err = lexicon.Unmarshal(old); err != nil {
			return nil, fmt.Errorf("%w: %w", errRecord, err)
		}
	}
	record, err := s.cfg.record(before)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if action == repo.Update && block.CIDOf(record) == id {
		return record, nil
	}
	if icon := s.cfg.Icon; icon != nil {
		if _, err := account.UploadBlob(ctx, icon.mediaType, icon.content); err != nil {
			return nil, fmt.Errorf("upload icon: %w", err)
		}
	}
	_, err = account.Apply(ctx, []repo.Write{{Action: action, Collection: lexicon.NSIDPublication, RKey: rkey, Record: record}}, nil)
	return record, err
}
