package delivery

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// account is a Publisher like an account on the reference PDS: a call with a create of an
// existing key, or a delete of a missing one, fails with a status 500 that gives no reason.
type account struct {
	repo    *repo.Repo
	answers []answer                        // to the next calls of Apply
	refuse  func(writes []repo.Write) error // of each other call; nil, or a nil error: it is applied
	named   bool                            // what the repo refuses is a *repo.WriteError, as other PDSs answer
	revDown bool                            // Rev fails

	applies, gets, lists int            // calls
	applied              map[string]int // how often a write of a path was applied
}

// An answer is the outcome of one call of Apply.
type answer struct {
	err     error // nil: as without the answer
	applied bool  // the call failed yet was applied
}

func newAccount(t testing.TB) *account {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Init(repo.Config{Dir: "hold", DID: "did:web:hold.test", Key: key, FS: vfs.NewMem(), Reserve: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return &account{repo: r, applied: map[string]int{}}
}

func (a *account) Apply(ctx context.Context, writes []repo.Write, _ *cid.Cid) (repo.Result, error) {
	a.applies++
	if len(a.answers) > 0 {
		next := a.answers[0]
		a.answers = a.answers[1:]
		if next.err != nil && next.applied {
			if _, err := a.commit(ctx, writes); err != nil {
				return repo.Result{}, err
			}
		}
		if next.err != nil {
			return repo.Result{}, next.err
		}
	}
	if a.refuse != nil {
		if err := a.refuse(writes); err != nil {
			return repo.Result{}, err
		}
	}
	return a.commit(ctx, writes)
}

func (a *account) commit(ctx context.Context, writes []repo.Write) (repo.Result, error) {
	result, err := a.repo.Apply(ctx, writes, nil)
	if err != nil && !a.named && errors.As(err, new(*repo.WriteError)) {
		return result, failure()
	}
	if err == nil {
		for _, w := range writes {
			a.applied[path(w)]++
		}
	}
	return result, err
}

func (a *account) Get(_ context.Context, collection, rkey string) (cid.Cid, []byte, error) {
	a.gets++
	return a.repo.Get(collection, rkey)
}

func (a *account) List(_ context.Context, collection, cursor string, limit int, reverse bool) ([]repo.Record, string, error) {
	a.lists++
	return a.repo.List(collection, cursor, limit, reverse)
}

func (a *account) UploadBlob(context.Context, string, []byte) (repo.Blob, error) {
	return repo.Blob{}, errors.New("a delivery uploads no blobs")
}

func (a *account) Rev(context.Context) (string, error) {
	if a.revDown {
		return "", outcome(pds.Unknown)
	}
	return a.repo.Head().Rev, nil
}

// outcome is an error whose Outcome is o, without an answer of the PDS.
func outcome(o pds.Outcome) *pds.Error {
	return &pds.Error{Method: "com.atproto.repo.applyWrites", Outcome: o, Err: errors.New("the connection broke")}
}

// failure is a status 500 that gives no reason.
func failure() *pds.Error {
	return &pds.Error{Method: "com.atproto.repo.applyWrites", Status: 500, Name: "InternalServerError"}
}

const collection = lexicon.NSIDLayer

// firstTID is the time of the first key of creates.
const firstTID = 1_750_000_000_000_000

func key(i int) string { return syntax.NewTID(firstTID+int64(i), 0).String() }

// create is a write of one record; its text says which.
func create(t testing.TB, rkey, text string) repo.Write {
	t.Helper()
	record, err := lexicon.Encode(lexicon.Layer{
		Digest: "sha256:" + text, MediaType: "x", Manifest: "at://did:web:x/io.atcr.manifest/00",
		UserDID: "did:web:hold.test", CreatedAt: "2026-01-01T00:00:00Z",
	})
	if err != nil {
		t.Fatal(err)
	}
	return repo.Write{Action: repo.Create, Collection: collection, RKey: rkey, Record: record}
}

// creates are n writes with ascending keys.
func creates(t testing.TB, n int) []repo.Write {
	t.Helper()
	writes := make([]repo.Write, n)
	for i := range writes {
		writes[i] = create(t, key(i), strconv.Itoa(i))
	}
	return writes
}

func deletes(creates []repo.Write) []repo.Write {
	writes := slices.Clone(creates)
	for i := range writes {
		writes[i].Action, writes[i].Record = repo.Delete, nil
	}
	return writes
}

// put writes to the repo as another client.
func (a *account) put(t testing.TB, writes ...repo.Write) {
	t.Helper()
	for part := range slices.Chunk(writes, MaxWrites) {
		if _, err := a.repo.Apply(t.Context(), part, nil); err != nil {
			t.Fatal(err)
		}
	}
}
