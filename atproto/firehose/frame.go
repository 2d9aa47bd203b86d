package firehose

import (
	"encoding/binary"

	"github.com/gorilla/websocket"
)

// frame is one message.
type frame struct {
	seq  uint64
	data []byte

	// shared is the message prepared for any number of sockets, with a copy of data;
	// nil: the frame is for one subscriber.
	shared *websocket.PreparedMessage
}

func newFrames(events []Event) []*frame {
	frames := make([]*frame, len(events))
	for i, e := range events {
		frames[i] = &frame{seq: e.Seq, data: e.Frame}
	}
	return frames
}

func prepare(frames []*frame) error {
	for _, m := range frames {
		msg, err := websocket.NewPreparedMessage(websocket.BinaryMessage, m.data)
		if err != nil {
			return err
		}
		m.shared = msg
	}
	return nil
}

func (m *frame) write(conn *websocket.Conn) error {
	if m.shared != nil {
		return conn.WritePreparedMessage(m.shared)
	}
	return conn.WriteMessage(websocket.BinaryMessage, m.data)
}

// The two frames that don't come from the log. Header and body are DAG-CBOR maps with
// text keys, ordered by length.

// infoFrame encodes an #info message: {"t": "#info", "op": 1}, {"name", "message"}.
func infoFrame(name, message string) []byte {
	out := text(text([]byte{0xa2}, "t"), "#info")
	out = append(text(out, "op"), 1)
	out = text(text(append(out, 0xa2), "name"), name)
	return text(text(out, "message"), message)
}

// errorFrame encodes the message that ends a stream: {"op": -1}, {"error", "message"}.
func errorFrame(name, message string) []byte {
	out := append(text([]byte{0xa1}, "op"), 0x20)
	out = text(text(append(out, 0xa2), "error"), name)
	return text(text(out, "message"), message)
}

// text appends a text string of less than 64 KiB.
func text(out []byte, s string) []byte {
	switch n := len(s); {
	case n < 24:
		out = append(out, 0x60|byte(n))
	case n < 1<<8:
		out = append(out, 0x78, byte(n))
	default:
		out = binary.BigEndian.AppendUint16(append(out, 0x79), uint16(n))
	}
	return append(out, s...)
}
