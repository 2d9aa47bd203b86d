package hold

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// applyTimeout bounds how long a write waits for its turn and for the disk.
const applyTimeout = 30 * time.Second

// validation is what a caller asks for by the member "validate".
type validation int

const (
	validateKnown validation = iota // unset: where a schema is known
	validateAll                     // true: an unknown collection is refused
	validateNone                    // false
)

func validationOf(c *xrpc.Call) validation {
	validate, given := c.Input["validate"].(bool)
	switch {
	case !given:
		return validateKnown
	case validate:
		return validateAll
	default:
		return validateNone
	}
}

// ownRepo refuses a body whose repo is not this hold's, or has moved away.
func (s *Server) ownRepo(c *xrpc.Call) error {
	if !s.id.Matches(c.Field("repo")) {
		return xrpc.NewError(http.StatusForbidden, "AccountNotFound", "Account not found")
	}
	return s.here()
}

// swap reads a member that holds a CID; nil when it is not given or null.
func swapCID(c *xrpc.Call, member string) (*cid.Cid, error) {
	text := c.Field(member)
	if text == "" {
		return nil, nil
	}
	parsed, err := cid.Decode(text)
	if err != nil {
		return nil, xrpc.InvalidRequest("Invalid CID string (got %.80q) at $.%s", text, member)
	}
	return &parsed, nil
}

// encode checks a record against its collection and makes it canonical. A
// missing $type is added. The status is empty when nothing was validated.
func (v validation) encode(collection, rkey string, record map[string]any) (cbor []byte, status string, err error) {
	switch given, ok := record["$type"]; {
	case !ok:
		record["$type"] = collection
	case given != collection:
		return nil, "", xrpc.InvalidRequest("Invalid $type: expected %s, got %.80v", collection, given)
	}
	if id, found := lexicon.LegacyBlob(record); found {
		return nil, "", xrpc.InvalidRequest("Legacy blobs are not allowed (%s)", id)
	}
	if v != validateNone {
		if status, err = v.validate(collection, rkey, record); err != nil {
			return nil, "", err
		}
	}
	if cbor, err = lexicon.Marshal(record); err != nil {
		return nil, "", xrpc.InvalidRequest("Invalid record: %v", err)
	}
	return cbor, status, nil
}

func (v validation) validate(collection, rkey string, record map[string]any) (status string, err error) {
	if status, err = lexicon.ValidateRecord(collection, record); err != nil {
		return "", xrpc.InvalidRequest("%v", err)
	}
	if status == lexicon.StatusUnknown && v == validateAll {
		return "", xrpc.InvalidRequest("Unknown lexicon type: %s", collection)
	}
	if err := lexicon.ValidateKey(collection, rkey); err != nil {
		return "", xrpc.InvalidRequest("%v", err)
	}
	return status, nil
}

// newKey is a record key for a caller who left the choice to us.
func (s *Server) newKey() string { return s.tids.Next().String() }

func (s *Server) apply(c *xrpc.Call, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	ctx, cancel := context.WithTimeout(c.Context(), applyTimeout)
	defer cancel()
	return s.repo.Apply(ctx, writes, swap)
}

type commitMeta struct {
	CID string `json:"cid"`
	Rev string `json:"rev"`
}

func metaOf(r repo.Result) *commitMeta { return &commitMeta{r.Commit.String(), r.Rev} }

func (s *Server) uri(collection, rkey string) string {
	return fmt.Sprintf("at://%s/%s/%s", s.id.DID, collection, rkey)
}
