package hold

import (
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// listRecords is com.atproto.repo.listRecords. A page may be shorter than its
// limit; the cursor says whether there is more.
func (s *Server) listRecords(c *xrpc.Call) (any, error) {
	if !s.has(c.Param("repo")) {
		return nil, xrpc.InvalidRequest("Could not find repo: %.300s", c.Param("repo"))
	}
	collection, cursor := c.Param("collection"), c.Param("cursor")
	reverse, _ := c.Params["reverse"].(bool)
	limit := int(c.Params["limit"].(int64)) // the schema has a default
	page := struct {
		Cursor  string       `json:"cursor,omitempty"`
		Records []recordView `json:"records"`
	}{Records: []recordView{}}
	records, next, err := s.repo.List(collection, cursor, limit, reverse)
	if err != nil {
		return nil, err
	}
	if page.Records, err = s.appendViews(page.Records, collection, records); err != nil {
		return nil, err
	}
	page.Cursor = next
	return page, nil
}

func (s *Server) appendViews(views []recordView, collection string, records []repo.Record) ([]recordView, error) {
	for _, r := range records {
		view, err := s.view(collection, r.RKey, r.CID, r.Value)
		if err != nil {
			return nil, err
		}
		views = append(views, view)
	}
	return views, nil
}
