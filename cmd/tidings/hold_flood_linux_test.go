package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tidings-dev/tidings/internal/race"
)

// peakMemory returns the peak resident memory of the server in MB.
func (s *server) peakMemory() (megabytes int) {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &megabytes); err == nil {
			return megabytes >> 10
		}
	}
	s.t.Fatal("no VmHWM in /proc")
	return 0
}

// dialFrom connects from a loopback address.
func dialFrom(address string) func(context.Context, string, string) (net.Conn, error) {
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return from.DialContext
}

// Thousands of logins with wrong passwords from several addresses. Each address has 30
// attempts and then one a second, memory does not grow, the owner can log in
// meanwhile, also from one of these addresses, and pulls are served.
func TestHoldLoginFlood(t *testing.T) {
	race.Skip(t, "it measures memory and times, which the race detector changes")
	t.Parallel()
	s := newServer(t, settings{})
	s.allowLogin()
	password := s.newPassword()
	s.start()
	s.loginWith(password)
	s.push(t, "oss/app", "v1", newImage(1))
	before, begun := s.peakMemory(), time.Now()

	const addresses, clients, tries, allowed = 8, 8, 50, 30
	try := func(c *http.Client, password string) (int, string) {
		body, _ := json.Marshal(map[string]string{"identifier": unescaped(s.did), "password": password})
		res, err := c.Post("http://"+s.host+"/xrpc/com.atproto.server.createSession", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode, res.Header.Get("Retry-After")
	}
	var mu sync.Mutex
	answers := map[int]int{}
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return answers[401] >= addresses*allowed && answers[429] > 1000
	}
	var trying sync.WaitGroup
	for i := range addresses {
		c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dialFrom(fmt.Sprintf("127.0.1.%d", i+1)), MaxIdleConnsPerHost: clients}}
		defer c.CloseIdleConnections()
		for range clients {
			trying.Go(func() {
				for n := 0; n < tries && !enough(); n++ {
					status, wait := try(c, fmt.Sprint("wrong ", n, strings.Repeat("!", 5000)))
					mu.Lock()
					if answers[status]++; status == http.StatusTooManyRequests && wait == "" {
						t.Error("no Retry-After")
					}
					mu.Unlock()
				}
			})
		}
	}
	for _, from := range []string{"127.0.2.1", "127.0.1.1"} {
		owner := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dialFrom(from)}}
		defer owner.CloseIdleConnections()
		if status, _ := try(owner, password); status != http.StatusOK {
			t.Errorf("the owner at %s: status %d", from, status)
		}
	}
	for range 100 {
		if status, err := s.get("oss/app", "v1"); status != http.StatusOK {
			t.Errorf("pull: %d %v", status, err)
		}
	}
	trying.Wait()
	slow := answers[401] - addresses*allowed
	if most := int(time.Since(begun).Seconds()) + 1; slow < 0 || slow > most || answers[401]+answers[429] < 1000 || len(answers) != 2 {
		t.Errorf("got %v, want 401 %d times and up to %d more, and 429 otherwise", answers, addresses*allowed, most)
	}
	after := s.peakMemory()
	if after > before+maxGrowth {
		t.Errorf("peak memory %d MB, %d before", after, before)
	}
	t.Logf("%v; peak memory %d MB, %d before", answers, after, before)
}

// maxGrowth bounds the memory of a flood in MB. It takes a third of this, and without
// limits twice as much. With the race detector it takes much more.
const maxGrowth = 150

// waitForCapacity waits until stuck requests have timed out: the hold limits
// concurrent requests and answers others with Retry-After.
func (s *server) waitForCapacity() {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		res, body, err := s.do("GET", "/xrpc/com.atproto.sync.getLatestCommit?did="+s.did, "", nil)
		if err == nil && res.StatusCode == http.StatusOK {
			return
		}
		if err != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || time.Now().After(end) {
			s.t.Fatalf("%v %v %s", res, err, body)
		}
	}
}

// Clients that only use resources: subscribers that do not read, and requests that send
// incomplete headers or bodies. Other clients are served, the firehose continues, and
// all resources are released when the clients disconnect.
func TestHoldFlood(t *testing.T) {
	race.Skip(t, "it measures memory and times, which the race detector changes")
	t.Parallel()
	s := newServer(t, settings{})
	s.allowLogin()
	password := s.newPassword()
	s.fill(20_000) // more than socket buffers hold
	s.start()
	session, key := s.loginWith(password), s.publicKey()
	before := s.peakMemory()

	var stuck []io.Closer
	leave := sync.OnceFunc(func() {
		for _, c := range stuck {
			c.Close()
		}
	})
	defer leave()
	small := func(i int) func(ctx context.Context, network, to string) (net.Conn, error) {
		return func(ctx context.Context, network, to string) (net.Conn, error) {
			conn, err := dialFrom(fmt.Sprintf("127.0.1.%d", 1+i%5))(ctx, network, to)
			if err != nil {
				return nil, err
			}
			return conn, conn.(*net.TCPConn).SetReadBuffer(4096)
		}
	}
	for i := range 300 {
		dialer := websocket.Dialer{NetDialContext: small(i)}
		socket, res, err := dialer.Dial("ws://"+s.host+"/xrpc/com.atproto.sync.subscribeRepos?cursor=0", nil)
		if err != nil {
			t.Fatalf("subscriber %d: %v %+v", i, err, res)
		}
		stuck = append(stuck, socket)
	}
	for i := range 300 {
		for _, begun := range []string{
			"GET /xrpc/_health HTTP/1.1\r\nHost: x\r\nX-",
			"POST /xrpc/com.atproto.server.createSession HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
			"POST /xrpc/com.atproto.repo.importRepo HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.ipld.car\r\nContent-Length: 100000000\r\n\r\n:",
		} {
			conn, err := small(i)(t.Context(), "tcp", s.host)
			if err != nil {
				t.Fatal(err)
			}
			stuck = append(stuck, conn)
			if _, err := io.WriteString(conn, begun); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	follower := newReader(s, key, false)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	following.Go(func() { follower.run(ctx) })
	s.pushAndPull("a", "b", "c")
	s.waitForCapacity()
	for i := range 20 {
		s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note(fmt.Sprint("flood", i)), http.StatusOK, "", session...)
		s.checkXRPC("GET", noteRecord+s.did+"&rkey="+fmt.Sprint("flood", i), nil, http.StatusOK, "")
	}
	s.waitDrained()
	s.verifyRepo()
	var latest struct{ Rev string }
	s.json(t, "/xrpc/com.atproto.sync.getLatestCommit?did="+s.did, &latest)
	follower.waitForRev(t, latest.Rev)
	cancel()

	after := s.peakMemory()
	if after > before+maxGrowth {
		t.Errorf("peak memory %d MB, %d before", after, before)
	}
	t.Logf("peak memory %d MB, %d before", after, before)
	leave()
	s.loginWith(password)
	s.stop()
}
