package main

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	storagemiddleware "github.com/distribution/distribution/v3/registry/storage/driver/middleware"

	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/internal/race"
)

// With runMain in its environment the test binary runs main, so that tests can run
// the program as a process and kill it.
const runMain = "TIDINGS_TEST_RUN_MAIN"

// noDeath disables dieattag.
const noDeath = "TIDINGS_TEST_NO_DEATH"

// clockFile names a file with the offset of the program's clock, such as "-10m". It
// may change while the program runs.
const clockFile = "TIDINGS_TEST_CLOCK"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) == "" {
		runParallel()
		if race.Enabled {
			runConcurrent()
		}
		os.Exit(m.Run())
	}
	if file := os.Getenv(clockFile); file != "" {
		clock.Now = offsetClock(file)
	}
	if err := storagemiddleware.Register("dieattag", dieAtTag); err != nil {
		panic(err)
	}
	main()
}

// runParallel sets the default of -parallel: the tests mostly wait for disks and processes,
// so that more of them than there are cores run at the same time.
func runParallel() {
	perCore := 3
	if race.Enabled {
		perCore = 2
	}
	if err := flag.Set("test.parallel", strconv.Itoa(perCore*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
}

// runConcurrent sets the default of -run to two, at random, of the tests of programs that do many
// things at the same time. The others run one command or request after another, which takes
// minutes with the race detector and is a part of what these do.
func runConcurrent() {
	concurrent := []string{"KillRounds$", "KillRoundsRedis", "RemoteRounds", "UnderLoad", "Backlog|Publication$"}
	rand.Shuffle(len(concurrent), func(i, k int) { concurrent[i], concurrent[k] = concurrent[k], concurrent[i] })
	if err := flag.Set("test.run", strings.Join(concurrent[:2], "|")); err != nil {
		panic(err)
	}
}

// offsetClock is a clock with the offset in a file.
func offsetClock(file string) func() time.Time {
	var offset atomic.Int64
	read := func() {
		text, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		by, err := time.ParseDuration(string(text))
		if err != nil {
			panic(err)
		}
		offset.Store(int64(by))
	}
	read()
	go func() {
		for range time.Tick(clockRead) {
			read()
		}
	}()
	return func() time.Time { return time.Now().Round(0).Add(time.Duration(offset.Load())) }
}

// clockRead is the interval at which clockFile is read.
const clockRead = 5 * time.Millisecond

// dieAtTag is a storage middleware that kills the process when a tag has been
// written, before the request is answered.
func dieAtTag(_ context.Context, inner storagedriver.StorageDriver, options map[string]any) (storagedriver.StorageDriver, error) {
	return &deadlyDriver{inner, "/tags/" + options["tag"].(string) + "/current/link"}, nil
}

type deadlyDriver struct {
	storagedriver.StorageDriver
	link string
}

func (d *deadlyDriver) PutContent(ctx context.Context, path string, content []byte) error {
	err := d.StorageDriver.PutContent(ctx, path, content)
	if err == nil && strings.HasSuffix(path, d.link) && os.Getenv(noDeath) == "" {
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
