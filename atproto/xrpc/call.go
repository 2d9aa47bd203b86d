package xrpc

import (
	"net/http"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Call is one request to a Method. The parameters and the input are valid by the
// method's schema.
type Call struct {
	*http.Request
	NSID       string
	Params     map[string]any
	Input      map[string]any // of a procedure with a JSON body
	InputLimit int64          // bytes of the JSON body; 0: MaxInput. Access may lower it
	Response   http.Header    // of the response
	Caller     any            // set by Access for Serve

	server *Server
	writer http.ResponseWriter
}

// newCall returns a Call whose parameters and input are not read.
func newCall(s *Server, w http.ResponseWriter, r *http.Request, nsid string) *Call {
	return &Call{Request: r, NSID: nsid, Response: w.Header(), server: s, writer: w}
}

func (c *Call) readParams() (err error) {
	if c.Params, err = lexicon.Params(c.NSID, c.URL.Query()); err != nil {
		return InvalidRequest("Invalid %s params: %v", c.NSID, err)
	}
	return nil
}

// Param returns a string parameter; empty if it is not given.
func (c *Call) Param(name string) string {
	text, _ := c.Params[name].(string)
	return text
}

// Field returns a string member of the input; empty if it is not given.
func (c *Call) Field(name string) string {
	text, _ := c.Input[name].(string)
	return text
}
