package hold

import "github.com/tidings-dev/tidings/atproto/xrpc"

// deleteSession is com.atproto.server.deleteSession, called with the refresh
// token, be it expired. It ends the session's access tokens too, which at the
// reference server go on.
func (s *Server) deleteSession(c *xrpc.Call) (any, error) {
	token, err := s.authorize(c.Request, refreshToken)
	if err != nil && (err != errExpiredToken || token.Session == "") {
		return nil, err
	}
	return xrpc.Empty{}, s.sessions.end(token.Session, s.now())
}
