package hold

// refreshSession is com.atproto.server.refreshSession. Sessions are not kept
// here: an earlier refresh token stays good until it expires or a new password
// is set.
func (s *Server) refreshSession(*call) (any, error) {
	secret, err := s.tokenSecret()
	if err != nil {
		return nil, err
	}
	return s.newSession(secret)
}
