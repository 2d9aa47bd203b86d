package hold

import (
	"net/http"
	"strings"
)

// resolveHandle is com.atproto.identity.resolveHandle, for our own handle.
func (s *Server) resolveHandle(c *call) (any, error) {
	handle := c.param("handle")
	if s.id.Handle == HandleInvalid || !strings.EqualFold(handle, s.id.Handle) {
		return nil, &Error{http.StatusBadRequest, "HandleNotFound", "Unable to resolve handle"}
	}
	return map[string]string{"did": s.id.DID}, nil
}
