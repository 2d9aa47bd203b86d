package hold

// describeServer is com.atproto.server.describeServer. Nobody else can have an
// account here.
func (s *Server) describeServer(*call) (any, error) {
	return map[string]any{
		"did":                  s.id.DID,
		"availableUserDomains": []string{},
		"inviteCodeRequired":   true,
	}, nil
}
