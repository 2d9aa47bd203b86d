package hold

import (
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// resolveHandle is com.atproto.identity.resolveHandle, for our own handle.
func (s *Server) resolveHandle(c *xrpc.Call) (any, error) {
	handle := c.Param("handle")
	if s.id.Handle == identity.HandleInvalid || !strings.EqualFold(handle, s.id.Handle) {
		return nil, xrpc.NewError(http.StatusBadRequest, "HandleNotFound", "Unable to resolve handle")
	}
	return map[string]string{"did": s.id.DID}, nil
}
