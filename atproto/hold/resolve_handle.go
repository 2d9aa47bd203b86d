package hold

import (
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/atproto/identity"
)

// resolveHandle is com.atproto.identity.resolveHandle, for our own handle.
func (s *Server) resolveHandle(c *call) (any, error) {
	handle := c.param("handle")
	if s.id.Handle == identity.HandleInvalid || !strings.EqualFold(handle, s.id.Handle) {
		return nil, &Error{http.StatusBadRequest, "HandleNotFound", "Unable to resolve handle"}
	}
	return map[string]string{"did": s.id.DID}, nil
}
