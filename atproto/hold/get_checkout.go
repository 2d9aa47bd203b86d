package hold

import "github.com/tidings-dev/tidings/atproto/xrpc"

// getCheckout is com.atproto.sync.getCheckout, which getRepo replaced: the
// whole repository as of the head. As of another commit it is not kept.
func (s *Server) getCheckout(c *xrpc.Call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	if err := s.mustBeHead(c, "commit"); err != nil {
		return nil, err
	}
	return s.export(c, exportTimeout, s.repo.Export), nil
}
