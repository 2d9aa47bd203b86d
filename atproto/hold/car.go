package hold

import (
	"io"

	"github.com/tidings-dev/tidings/atproto/xrpc"
)

func carOf(write func(io.Writer) error) xrpc.Stream {
	return xrpc.Stream{ContentType: "application/vnd.ipld.car", Write: write}
}
