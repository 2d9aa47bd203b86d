package hold

import "io"

func carOf(write func(io.Writer) error) stream {
	return stream{"application/vnd.ipld.car", write}
}
