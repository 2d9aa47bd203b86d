package hold

import "github.com/tidings-dev/tidings/atproto/xrpc"

// refreshSession is com.atproto.server.refreshSession. The token that was used
// stays good for a while, and always gets the same successor.
func (s *Server) refreshSession(c *xrpc.Call) (any, error) {
	token, err := s.authorize(c.Request, refreshToken)
	if err != nil {
		return nil, err
	}
	session, id, err := s.sessions.rotate(token.ID, s.now())
	if err != nil {
		return nil, err
	}
	return s.sessionTokens(session, id)
}
