package rediscounts

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/notifier/lastuse"
)

// Last uses of tags and manifests are in one table for all registries, which has the latest
// time of each. So the uses that a registry has answered stay known when its id is forgotten.
//
// The table has an epoch, which is replaced when Redis has lost something. Each registry has
// a mark with the epoch in which it has sent all its uses, and up to when. A mark of another
// epoch, or none, means that uses of that registry may be missing in the table.

// UsesEpoch names the table between two losses. It is empty if Redis has none.
type UsesEpoch string

// NewUsesEpoch returns an epoch that begins at a time.
func NewUsesEpoch(now time.Time) UsesEpoch {
	return UsesEpoch(NewID() + " " + strconv.FormatInt(now.UnixMilli(), 10))
}

// Begun returns when the epoch began, by the clock of the registry that noticed the loss.
func (e UsesEpoch) Begun() time.Time {
	_, text, _ := strings.Cut(string(e), " ")
	ms, _ := strconv.ParseInt(text, 10, 64)
	return time.UnixMilli(ms).UTC()
}

// A UsesMark says which uses of a registry are in Redis.
type UsesMark struct {
	Epoch   UsesEpoch `json:"epoch"`
	Seq     uint64    `json:"seq"`               // grows with each mark
	Since   time.Time `json:"since"`             // the registry knows its uses from here on
	Upto    time.Time `json:"upto"`              // up to here they are in Redis, by the registry's clock
	Stopped bool      `json:"stopped,omitempty"` // it has stopped, and has no later uses
}

// UsesState is the epoch and the marks by registry id.
type UsesState struct {
	Epoch UsesEpoch
	Marks map[string]UsesMark
}

// epochField is no registry id.
const epochField = "epoch"

// ReadUsesState reads the epoch and the marks. A mark that is not valid is left out.
func (d *DB) ReadUsesState(ctx context.Context) (UsesState, error) {
	fields, err := d.client.HGetAll(ctx, d.Keys.UsesState()).Result()
	if err != nil {
		return UsesState{}, typeError(err, d.Keys.UsesState())
	}
	state := UsesState{UsesEpoch(fields[epochField]), map[string]UsesMark{}}
	for id, text := range fields {
		var mark UsesMark
		if id != epochField && json.Unmarshal([]byte(text), &mark) == nil {
			state.Marks[id] = mark
		}
	}
	return state, nil
}

//go:embed uses.lua
var usesSource string

var usesScript = redis.NewScript(usesSource)

// A UsesWrite merges at most RowsInCall changes into the table.
type UsesWrite struct {
	ID       string
	Expected UsesEpoch // that Redis has
	Next     UsesEpoch // replaces it; empty: it stays
	Mark     *UsesMark // of ID; nil: it stays
	Changes  []lastuse.Change
}

// WriteUses writes to the table. If Redis has another epoch, it changes nothing and returns
// ErrChanged. After any other error the write may have been executed; it can be repeated.
func (d *DB) WriteUses(ctx context.Context, w UsesWrite) error {
	keys, args := []string{d.Keys.UsesState()}, []any{string(w.Expected), string(w.Next), w.ID, ""}
	if w.Mark != nil {
		mark, err := json.Marshal(w.Mark)
		if err != nil {
			return err
		}
		args[3] = mark
	}
	byKey := map[string][]lastuse.Change{}
	for _, c := range w.Changes {
		key := d.Keys.usesOf(c.ID)
		byKey[key] = append(byKey[key], c)
	}
	for key, changes := range byKey {
		keys, args = append(keys, key), append(args, len(changes))
		for _, c := range changes {
			k := c.ID.Key()
			args = append(args, k[:], c.Use.Pushed, c.Use.Used, c.Deleted)
		}
	}
	reply, err := usesScript.Run(ctx, d.client, keys, args...).StringSlice()
	switch {
	case err != nil:
		return typeError(err, d.Keys.UsesState())
	case len(reply) == 2 && reply[0] == "type":
		return fmt.Errorf("%w; delete the key %q as well, so that all registries send their last uses again", NotAHash(reply[1]), d.Keys.UsesState())
	case len(reply) != 1 || reply[0] != "ok":
		return ErrChanged
	}
	return nil
}

// Uses returns the last uses of at most RowsInCall tags and manifests; zero for those that
// Redis does not have.
func (d *DB) Uses(ctx context.Context, ids []lastuse.ID) ([]lastuse.Use, error) {
	fields := make([]Field, len(ids))
	for i, id := range ids {
		k := id.Key()
		fields[i] = Field{d.Keys.usesOf(id), string(k[:])}
	}
	values, err := d.Values(ctx, fields)
	if err != nil {
		return nil, err
	}
	uses := make([]lastuse.Use, len(ids))
	for i, text := range values {
		if text == WrongType {
			return nil, NotAHash(fields[i].Key)
		}
		uses[i] = parseUse(text)
	}
	return uses, nil
}

// ScanUses calls visit with the last uses in a repository, until it returns an error. It may
// visit a tag or manifest twice.
func (d *DB) ScanUses(ctx context.Context, repository string, visit func(lastuse.Key, lastuse.Use) error) error {
	for shard := range useShards {
		key := d.Keys.uses(lastuse.IDOf(repository, lastuse.Key{}).Repository(), shard)
		for cursor := uint64(0); ; {
			pairs, next, err := d.client.HScan(ctx, key, cursor, "", 1000).Result()
			if err != nil {
				return typeError(err, key)
			}
			for i := 0; i+1 < len(pairs); i += 2 {
				if len(pairs[i]) != len(lastuse.Key{}) {
					continue // not written by Tidings
				}
				if err := visit(lastuse.Key([]byte(pairs[i])), parseUse(pairs[i+1])); err != nil {
					return err
				}
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
	return nil
}

// PruneUses drops the last uses in a repository for which old is true, if they are from before
// a time. If Redis has another epoch, it changes nothing and returns ErrChanged.
func (d *DB) PruneUses(ctx context.Context, epoch UsesEpoch, repository string, before time.Time, old func(lastuse.Key, lastuse.Use) bool) error {
	var changes []lastuse.Change
	flush := func() error {
		if len(changes) == 0 {
			return nil
		}
		err := d.WriteUses(ctx, UsesWrite{Expected: epoch, Changes: changes})
		changes = changes[:0]
		return err
	}
	err := d.ScanUses(ctx, repository, func(k lastuse.Key, u lastuse.Use) error {
		if !old(k, u) {
			return nil
		}
		if changes = append(changes, lastuse.Delete(lastuse.IDOf(repository, k), before)); len(changes) < RowsInCall {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// parseUse parses the value of a field; zero if it is empty or not valid.
func parseUse(text string) lastuse.Use {
	pushed, used, _ := strings.Cut(text, " ")
	p, err := strconv.ParseUint(pushed, 10, 32)
	u, err2 := strconv.ParseUint(used, 10, 32)
	if errors.Join(err, err2) != nil {
		return lastuse.Use{}
	}
	return lastuse.Use{Pushed: int64(p), Used: int64(u)}
}

// usesDelay is how old the mark of a running registry may be: several times what passes
// between two marks.
const usesDelay = time.Minute

// Known returns since when the uses of all registries but one are in the table, and which
// later uses are not. seen are registry ids that were in Redis before; records are those of
// Records.
func (s UsesState) Known(self string, seen []string, records map[string]string, now time.Time) lastuse.Known {
	var known lastuse.Known
	ids := slices.Clone(seen)
	for id := range records {
		ids = append(ids, id)
	}
	for id := range s.Marks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	parsed, newest := parseRecords(records)
	var absent, missing []string
	for _, id := range slices.Compact(ids) {
		if id == self {
			continue
		}
		since := s.Epoch.Begun()
		mark, marked := s.Marks[id]
		if marked && mark.Epoch == s.Epoch {
			since = mark.Since
		}
		if known.Since.Before(since) {
			known.Since = since
		}
		if rec := parsed[id]; s.unsent(id, rec, newest) && (!marked || now.Sub(mark.Upto).Abs() > usesDelay) {
			absent, missing = append(absent, id), append(missing, missingText(id, rec, mark, now))
		}
	}
	known.Missing = absentText(absent, missing)
	return known
}

// unsent reports whether a registry can have uses that it has not sent. newest is when each data
// folder was last seen under any id.
func (s UsesState) unsent(id string, rec *Record, newest map[string]int64) bool {
	mark, marked := s.Marks[id]
	switch {
	case rec == nil || rec.ended() || marked && mark.Stopped:
		return false
	case rec.Instance != "" && newest[rec.Instance] > rec.Seen: // the folder was restored, and has a new id
		return false
	}
	return marked || rec.Instance != ""
}

// loseUses notes that the uses which a registry has not sent are lost: uses are known from now
// on only. It reports whether there can be any, and since when.
func (d *DB) loseUses(ctx context.Context, id string, now time.Time) (lost bool, since time.Time, err error) {
	state, err := d.ReadUsesState(ctx)
	if err != nil || state.Epoch == "" {
		return false, since, err
	}
	records, err := d.Records(ctx)
	if err != nil {
		return false, since, err
	}
	parsed, newest := parseRecords(records)
	if !state.unsent(id, parsed[id], newest) {
		return false, since, nil
	}
	mark := state.Marks[id]
	since = mark.Upto
	mark.Epoch, mark.Since, mark.Stopped = state.Epoch, now.UTC(), true
	return true, since, d.WriteUses(ctx, UsesWrite{ID: id, Expected: state.Epoch, Mark: &mark})
}

// missingText says which uses of a registry are not in Redis. mark is zero if it has none.
func missingText(id string, rec *Record, mark UsesMark, now time.Time) string {
	name := fmt.Sprintf("the registry %s (%s)", id, cmp.Or(rec.Host, "unknown host"))
	switch {
	case mark == UsesMark{}:
		return fmt.Sprintf("%s has not sent its uses, and was last seen at %s", name, time.Unix(rec.Seen, 0).UTC().Format(time.RFC3339))
	case mark.Upto.After(now):
		return fmt.Sprintf("the clock of %s is ahead by %s", name, mark.Upto.Sub(now).Round(time.Second))
	}
	return fmt.Sprintf("%s has not sent its uses since %s", name, mark.Upto.UTC().Format(time.RFC3339))
}

// absentText says what is missing of the registries with some ids, and what to do. It is
// empty if there are none.
func absentText(ids, missing []string) string {
	if len(ids) == 0 {
		return ""
	}
	const most = 5
	if more := len(missing) - most; more > 0 {
		missing = append(missing[:most], fmt.Sprintf("and %d more", more))
	}
	them, one, id := "it", "it", ids[0]
	if len(ids) > 1 {
		them, one, id = "them", "one", "<id>"
	}
	return fmt.Sprintf("%s; start %s and let %s reach Redis or, if %s no longer exists, run `tidings redis forget <config> %s`, after which uses are known from then on only, or with --uses-sent if it has answered none since",
		strings.Join(missing, "; "), them, them, one, id)
}

// ended reports whether no registry uses the id any more, as far as the record says.
func (r *Record) ended() bool { return r.Kept || r.Removed || r.Part }

// parseRecords returns the records, and when each data folder was last seen under any id.
func parseRecords(records map[string]string) (parsed map[string]*Record, newest map[string]int64) {
	parsed, newest = map[string]*Record{}, map[string]int64{}
	for id, raw := range records {
		if rec := ParseRecord(raw); rec != nil {
			parsed[id] = rec
			newest[rec.Instance] = max(newest[rec.Instance], rec.Seen)
		}
	}
	return parsed, newest
}
