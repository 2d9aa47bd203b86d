package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A Difference is something that two of the stores do not agree on: storage, the ledger,
// the account's repo, the local numbers, and Redis.
type Difference struct {
	Kind       string `json:"kind"`
	Owner      string `json:"owner,omitempty"`      // of the ledger entry or record
	Repository string `json:"repository,omitempty"` // "" if it is about none
	Digest     string `json:"digest,omitempty"`     // of the manifest
	Detail     string `json:"detail"`
}

// Repairable reports whether a repair removes the difference. Counts cannot be derived from
// anything else, and records of another form may be those of another program.
func (d *Difference) Repairable() bool {
	return d.Kind != Count && (d.Kind != Record || d.Digest != "")
}

func (d Difference) String() string {
	image := d.Repository
	if d.Digest != "" {
		image += "@" + d.Digest
	}
	if d.Owner != "" {
		image = d.Owner + " " + image
	}
	if image == "" {
		return d.Kind + ": " + d.Detail
	}
	return d.Kind + ": " + image + ": " + d.Detail
}

// Kinds of differences.
const (
	Missing = "missing" // the ledger has no correct entry for a manifest of a public repository
	Stale   = "stale"   // a ledger entry has a claim of a repository that does not have the manifest
	Record  = "record"  // a record of a ledger entry is not in the repo, or one in the repo is in no entry
	Count   = "count"   // a repository's numbers by tag or by day exceed its total
	Redis   = "redis"   // Redis has other counts; each start corrects them
	Post    = "post"    // a post is not in the history
)

// Check compares the stores and calls visit with each difference. It must be called when
// no event is pending. Claims of other registries' images are compared with the repo only. It reads
// everything: its cost grows with storage and repo. Records are listed in pages, and only
// those that the lists did not show are read one by one. How many records of each manifest
// were listed is noted in the state meanwhile, so memory does not grow. progress, if not nil,
// is called with how many of each noun were compared, one noun after the other.
func (r *Reconciler) Check(ctx context.Context, progress func(noun string, done int64), visit func(Difference) error) (err error) {
	c := &checker{Reconciler: r, visit: visit, progress: progress}
	if err := c.clearListed(); err != nil { // of a check that was interrupted
		return err
	}
	defer func() { err = errors.Join(err, c.clearListed()) }()
	for _, check := range []func(context.Context) error{c.storage, c.records, c.entries, c.posts, c.counts, c.redis} {
		if err := check(ctx); err != nil {
			return fmt.Errorf("check: %w", err)
		}
	}
	return nil
}

type checker struct {
	*Reconciler
	visit    func(Difference) error
	progress func(noun string, done int64)
	noun     string // that is being compared
	done     int64
	batch    state.Batch
	noted    int    // rows in batch
	last     string // key of the manifest whose records are being listed
	number   uint64 // of these records
}

// compared reports that one more of a noun is compared. It returns an error once ctx ends: the
// stores on this machine are read without it.
func (c *checker) compared(ctx context.Context, noun string) error {
	if noun != c.noun {
		c.noun, c.done = noun, 0
	}
	if c.done++; c.progress != nil {
		c.progress(noun, c.done)
	}
	return ctx.Err()
}

func (c *checker) storage(ctx context.Context) error {
	return c.eachStored(ctx, func(m storedManifest) error {
		if err := c.compared(ctx, "manifests in storage"); err != nil {
			return err
		}
		owner := c.OwnerOf(ctx, m.repository)
		e, found, err := c.Ledger.Get(owner.DID, m.digest)
		if err != nil {
			return err
		}
		detail := ""
		switch {
		case owner.DID == "":
			detail = "its owner's handle is not resolved"
		case !found:
			detail = "the ledger has no entry"
		case !e.In(m.repository):
			detail = fmt.Sprintf("the ledger has claims of %q", e.Repositories)
		case e.Records != m.layers:
			detail = fmt.Sprintf("the ledger has %d records for %d layers", e.Records, m.layers)
		default:
			return nil
		}
		return c.visit(Difference{Missing, owner.String(), m.repository, m.digest, detail})
	})
}

// entries checks the ledger's entries, after records has noted what the account lists.
func (c *checker) entries(ctx context.Context) error {
	return c.Ledger.All(func(owner, digest string, e ledger.Entry) error {
		if err := c.compared(ctx, "manifests in the ledger"); err != nil {
			return err
		}
		listed, err := c.listed(owner, digest)
		if err != nil {
			return err
		}
		for i := range e.Records {
			if listed == e.Records {
				break
			}
			key := records.Key(e, i)
			_, value, err := c.Account.Get(ctx, lexicon.NSIDLayer, key)
			if errors.Is(err, repo.ErrNotFound) {
				if err := c.visit(Difference{Record, owner, "", digest, "record " + key + " is not in the account"}); err != nil {
					return err
				}
				continue
			}
			if err != nil {
				return err
			}
			if l, ok := records.ReadLayer(repo.Record{RKey: key, Value: value}); !ok || l.Owner != owner || l.Manifest != digest {
				if err := c.visit(Difference{Record, owner, "", digest, "record " + key + " is of another manifest"}); err != nil {
					return err
				}
			}
		}
		for _, repository := range e.Repositories {
			if !c.Local(owner, repository) {
				continue
			}
			has, err := c.Storage.Has(ctx, repository, digest)
			if err != nil {
				return err
			}
			if has {
				continue
			}
			if err := c.visit(Difference{Stale, owner, repository, digest, "the repository does not have the manifest"}); err != nil {
				return err
			}
		}
		return nil
	})
}

// records checks the account's records.
func (c *checker) records(ctx context.Context) error {
	err := c.Account.Each(ctx, lexicon.NSIDLayer, func(r repo.Record) error {
		if err := c.compared(ctx, "layer records"); err != nil {
			return err
		}
		l, ok := records.ReadLayer(r)
		if !ok {
			return c.visit(Difference{Kind: Record, Detail: "record " + r.RKey + " can't be read"})
		}
		e, found, err := c.Ledger.Get(l.Owner, l.Manifest)
		if err != nil {
			return err
		}
		if !found && c.foreign(l.ClockID) {
			return nil
		}
		if !found || !l.In(e) {
			return c.visit(Difference{Record, l.Owner, "", l.Manifest, "record " + r.RKey + " is in no ledger entry"})
		}
		return c.noteListed(l.Owner, l.Manifest)
	})
	if err != nil {
		return err
	}
	return c.commitListed()
}

func (c *checker) posts(ctx context.Context) error {
	return c.Account.Each(ctx, lexicon.NSIDPost, func(r repo.Record) error {
		if err := c.compared(ctx, "posts"); err != nil {
			return err
		}
		image, ok := announce.Origin(r)
		if !ok {
			return nil
		}
		known, err := c.Posts.Has(image.Repository, image.Digest, r.RKey)
		if err != nil || known {
			return err
		}
		return c.visit(Difference{Post, c.Owner, image.Repository, image.Digest, "post " + r.RKey + " is not in the history of announcements"})
	})
}

// counts compares local numbers with each other: the total of a repository is at least
// the sum of its tags and that of its days.
func (c *checker) counts(ctx context.Context) error {
	all, err := c.Counter.Repositories(ctx)
	if err != nil {
		return err
	}
	for _, repository := range all {
		if err := c.compared(ctx, "repositories with counts"); err != nil {
			return err
		}
		_, tags, _, err := c.Counter.Repository(ctx, repository.Name)
		if err != nil {
			return err
		}
		days, err := c.Counter.Daily(ctx, repository.Name, counts.KeepDays)
		if err != nil {
			return err
		}
		for _, class := range counts.Classes {
			var byTag, byDay int64
			for _, tag := range tags {
				byTag += tag[class]
			}
			for _, day := range days {
				byDay += day.Counts[class]
			}
			if total := repository.Counts[class]; byTag > total || byDay > total {
				err := c.visit(Difference{Count, "", repository.Name, "", fmt.Sprintf("%d %s, %d by tag, %d by day", total, class, byTag, byDay)})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *checker) redis(ctx context.Context) error {
	return c.Counter.CompareRedis(ctx, func(repository, detail string) error {
		return c.visit(Difference{Kind: Redis, Repository: repository, Detail: detail})
	})
}
