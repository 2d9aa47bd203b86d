package main

import (
	"context"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	storagemiddleware "github.com/distribution/distribution/v3/registry/storage/driver/middleware"
)

// With beProgram in its environment the test binary is the program, so that
// tests can run it in a process of its own, and kill it.
const beProgram = "TIDINGS_TEST_BE_PROGRAM"

// dieNoMore lets dieattag live.
const dieNoMore = "TIDINGS_TEST_DIE_NO_MORE"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) == "" {
		os.Exit(m.Run())
	}
	if err := storagemiddleware.Register("dieattag", dieAtTag); err != nil {
		panic(err)
	}
	main()
}

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
