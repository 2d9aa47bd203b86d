package hold

import "github.com/tidings-dev/tidings/atproto/xrpc"

// describeServer is com.atproto.server.describeServer. Nobody else can have an
// account here.
func (s *Server) describeServer(*xrpc.Call) (any, error) {
	return map[string]any{
		"did":                  s.id.DID,
		"availableUserDomains": []string{},
		"inviteCodeRequired":   true,
	}, nil
}
