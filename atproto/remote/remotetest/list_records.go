package remotetest

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

type listed struct {
	URI   string        `json:"uri"`
	CID   string        `json:"cid"`
	Value lexicon.Layer `json:"value"`
}

// listRecords is com.atproto.repo.listRecords of the layer records.
func (s *Server) listRecords(w http.ResponseWriter, r *http.Request) {
	params, err := lexicon.Params("com.atproto.repo.listRecords", r.URL.Query())
	if err != nil || r.Method != http.MethodGet || params["repo"] != s.DID || params["collection"] != lexicon.NSIDLayer {
		refuse(w, http.StatusBadRequest, "InvalidRequest", "invalid parameters")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	records := slices.Clone(s.records)
	if reverse, _ := params["reverse"].(bool); reverse == s.cfg.Ascending {
		slices.Reverse(records)
	}
	if cursor, _ := params["cursor"].(string); cursor != "" {
		at := slices.IndexFunc(records, func(r record) bool { return r.rkey == cursor })
		records = records[at+1:]
	}
	limit := int(params["limit"].(int64))
	out := map[string]any{}
	page := []listed{}
	for _, r := range records[:min(limit, len(records))] {
		value, err := json.Marshal(r.layer)
		if err != nil {
			panic(err)
		}
		page = append(page, listed{"at://" + s.DID + "/" + lexicon.NSIDLayer + "/" + r.rkey, block.CIDOf(value).String(), r.layer})
	}
	if len(records) > limit {
		out["cursor"] = records[limit-1].rkey
	}
	out["records"] = page
	reply(w, http.StatusOK, out)
}
