package hold

import (
	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// describeServer is com.atproto.server.describeServer. There is no way to create
// another account here.
func (s *Server) describeServer(*xrpc.Call) (any, error) {
	return map[string]any{
		"did":                  s.id.DID,
		"availableUserDomains": []string{},
		"inviteCodeRequired":   true,
	}, nil
}

// sessionView is the result of the session methods. getSession leaves out the
// tokens.
type sessionView struct {
	AccessJWT  string            `json:"accessJwt,omitempty"`
	RefreshJWT string            `json:"refreshJwt,omitempty"`
	Handle     string            `json:"handle"`
	DID        string            `json:"did"`
	DIDDoc     identity.Document `json:"didDoc"`
	Active     bool              `json:"active"`
	Status     string            `json:"status,omitempty"` // of an account that is not active
}

func (s *Server) sessionView(t auth.Tokens) sessionView {
	status := s.status()
	return sessionView{t.Access, t.Refresh, s.id.Handle, s.id.DID, s.doc, status == "", status}
}

// createSession is com.atproto.server.createSession.
func (s *Server) createSession(c *xrpc.Call) (any, error) {
	tokens, err := s.sessions.Create(c)
	return s.sessionView(tokens), err
}

// getSession is com.atproto.server.getSession.
func (s *Server) getSession(*xrpc.Call) (any, error) { return s.sessionView(auth.Tokens{}), nil }

// refreshSession is com.atproto.server.refreshSession.
func (s *Server) refreshSession(c *xrpc.Call) (any, error) {
	tokens, err := s.sessions.Refresh(c)
	return s.sessionView(tokens), err
}

// deleteSession is com.atproto.server.deleteSession.
func (s *Server) deleteSession(c *xrpc.Call) (any, error) {
	return xrpc.Empty{}, s.sessions.Delete(c)
}

// getServiceAuth is com.atproto.server.getServiceAuth: a token with which the
// account calls another service.
func (s *Server) getServiceAuth(c *xrpc.Call) (any, error) {
	expires, _ := c.Params["exp"].(int64)
	token, err := auth.Sign(s.id, c.Param("aud"), c.Param("lxm"), expires, s.now())
	if err != nil {
		return nil, err
	}
	return map[string]string{"token": token}, nil
}
