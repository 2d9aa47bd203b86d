package main

import (
	"context"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	storagemiddleware "github.com/distribution/distribution/v3/registry/storage/driver/middleware"

	"github.com/tidings-dev/tidings/internal/clock"
)

// With beProgram in its environment the test binary is the program, so that
// tests can run it in a process of its own, and kill it.
const beProgram = "TIDINGS_TEST_BE_PROGRAM"

// dieNoMore lets dieattag live.
const dieNoMore = "TIDINGS_TEST_DIE_NO_MORE"

// clockFile names a file with what is added to the program's clock, such as
// "-10m". It may change while the program runs.
const clockFile = "TIDINGS_TEST_CLOCK"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) == "" {
		os.Exit(m.Run())
	}
	if file := os.Getenv(clockFile); file != "" {
		clock.Now = wrongClock(file)
	}
	if err := storagemiddleware.Register("dieattag", dieAtTag); err != nil {
		panic(err)
	}
	main()
}

// wrongClock is a machine's clock that somebody sets.
func wrongClock(file string) func() time.Time {
	var wrong atomic.Int64
	read := func() {
		text, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		by, err := time.ParseDuration(string(text))
		if err != nil {
			panic(err)
		}
		wrong.Store(int64(by))
	}
	read()
	go func() {
		for range time.Tick(clockRead) {
			read()
		}
	}()
	return func() time.Time { return time.Now().Round(0).Add(time.Duration(wrong.Load())) }
}

// clockRead is how often the clock's file is read.
const clockRead = 5 * time.Millisecond

// dieAtTag is a storage middleware that kills the process once a tag points at
// its manifest, before anybody is told.
func dieAtTag(_ context.Context, inner storagedriver.StorageDriver, options map[string]any) (storagedriver.StorageDriver, error) {
	return &deadly{inner, "/tags/" + options["tag"].(string) + "/current/link"}, nil
}

type deadly struct {
	storagedriver.StorageDriver
	link string
}

func (d *deadly) PutContent(ctx context.Context, path string, content []byte) error {
	err := d.StorageDriver.PutContent(ctx, path, content)
	if err == nil && strings.HasSuffix(path, d.link) && os.Getenv(dieNoMore) == "" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return err
}

func unescaped(did string) string {
	s, err := url.QueryUnescape(did)
	if err != nil {
		panic(err)
	}
	return s
}
