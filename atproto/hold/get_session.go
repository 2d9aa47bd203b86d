package hold

import "github.com/tidings-dev/tidings/atproto/xrpc"

// getSession is com.atproto.server.getSession.
func (s *Server) getSession(*xrpc.Call) (any, error) { return s.account(), nil }
