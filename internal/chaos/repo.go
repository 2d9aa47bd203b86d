package main

import (
	"context"
	"net/url"
)

// listRepo lists every record of the account at the PDS itself, in all collections.
func (s *servers) listRepo(ctx context.Context) (contents, error) {
	var repo struct{ Collections []string }
	query := url.Values{"repo": {s.pds.DID}}
	err := get(ctx, s.pds.URL+"/xrpc/com.atproto.repo.describeRepo?"+query.Encode(), &repo)
	if err != nil {
		return nil, err
	}
	all := contents{}
	for _, collection := range repo.Collections {
		if err := s.listCollection(ctx, collection, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *servers) listCollection(ctx context.Context, collection string, into contents) error {
	query := url.Values{"repo": {s.pds.DID}, "collection": {collection}, "limit": {"100"}}
	for {
		var page struct {
			Cursor  string
			Records []struct {
				URI   string
				Value map[string]any
			}
		}
		err := get(ctx, s.pds.URL+"/xrpc/com.atproto.repo.listRecords?"+query.Encode(), &page)
		if err != nil {
			return err
		}
		for _, r := range page.Records {
			into.found(collection, r.URI, r.Value)
		}
		if page.Cursor == "" || len(page.Records) == 0 {
			return nil
		}
		query.Set("cursor", page.Cursor)
	}
}
