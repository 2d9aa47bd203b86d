package hold

// missingBlob is #recordBlob.
type missingBlob struct {
	CID       string `json:"cid"`
	RecordURI string `json:"recordUri"`
}

// listMissingBlobs is com.atproto.repo.listMissingBlobs: what an imported
// repository still needs uploaded.
func (s *Server) listMissingBlobs(c *call) (any, error) {
	after, err := c.cursorCID()
	if err != nil {
		return nil, err
	}
	found, err := s.repo.MissingBlobs(after, c.limit())
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
