package hold

import "github.com/tidings-dev/tidings/atproto/xrpc"

// missingBlob is #recordBlob.
type missingBlob struct {
	CID       string `json:"cid"`
	RecordURI string `json:"recordUri"`
}

// listMissingBlobs is com.atproto.repo.listMissingBlobs: what an imported
// repository still needs uploaded.
func (s *Server) listMissingBlobs(c *xrpc.Call) (any, error) {
	after, err := cursorCID(c)
	if err != nil {
		return nil, err
	}
	found, err := s.repo.MissingBlobs(after, limitParam(c))
	if err != nil {
		return nil, err
	}
	page := struct {
		Cursor string        `json:"cursor,omitempty"`
		Blobs  []missingBlob `json:"blobs"`
	}{Blobs: make([]missingBlob, len(found))}
	for i, b := range found {
		page.Blobs[i] = missingBlob{b.CID.String(), s.uri(b.Collection, b.RKey)}
		page.Cursor = page.Blobs[i].CID
	}
	return page, nil
}
