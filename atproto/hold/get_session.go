package hold

// getSession is com.atproto.server.getSession.
func (s *Server) getSession(*call) (any, error) { return s.account(), nil }
