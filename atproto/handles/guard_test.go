package handles

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"os"
	"strings"
	"testing"
)

// TestMain replaces the system's DNS by serveDNS.
func TestMain(m *testing.M) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go serveDNS(server)
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("udp", server.LocalAddr().String())
	}}
	os.Exit(m.Run())
}

// serveDNS answers questions for A with 127.0.0.1, and questions for TXT below _atproto
// with the DID of the second label: did.example.com has did:web:example.com.
func serveDNS(server net.PacketConn) {
	const typeA, typeTXT, nameError = 1, 16, 3
	buf := make([]byte, 512)
	for {
		size, from, err := server.ReadFrom(buf)
		if err != nil {
			return
		}
		query := buf[:size]
		end := 12 + bytes.IndexByte(query[12:], 0) + 1 // of the name; the labels are shorter than 256 bytes
		var labels []string
		for at := 12; query[at] != 0; at += 1 + int(query[at]) {
			labels = append(labels, string(query[at+1:at+1+int(query[at])]))
		}
		kind := binary.BigEndian.Uint16(query[end:])
		answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, query[12:end+4]...)
		var data []byte
		switch {
		case kind == typeA:
			data = []byte{127, 0, 0, 1}
		case kind == typeTXT && len(labels) > 2 && labels[0] == "_atproto" && labels[1] == "did":
			text := "did=did:web:" + strings.Join(labels[2:], ".")
			data = append([]byte{byte(len(text))}, text...)
		case kind == typeTXT:
			answer[3] |= nameError
		}
		if data != nil {
			answer[7] = 1
			answer = append(answer, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 60, 0, byte(len(data)))
			answer = append(answer, data...)
		}
		_, _ = server.WriteTo(answer, from)
	}
}

// A handle or a DID document whose host is on this machine is not read.
func TestGuarded(t *testing.T) {
	t.Parallel()
	r := New(Config{})
	t.Cleanup(func() { _ = r.Close() })
	for handle, want := range map[string]string{
		"inward.example.com":     "inward.example.com resolves to 127.0.0.1, which is not a public address",
		"did.inward.example.com": "inward.example.com resolves to 127.0.0.1, which is not a public address",
		"did.localhost":          "does not allow",
	} {
		if did, err := r.Resolve(t.Context(), handle); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, %v, want %q", handle, did, err, want)
		}
	}
}
