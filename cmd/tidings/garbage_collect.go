package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware/collected"
)

// recordCollected changes distribution's garbage-collect: if the
// registry has Tidings, each manifest is recorded in the data folder before it is
// deleted, and the registry's next start deletes its records. Otherwise the
// command is unchanged.
func recordCollected(gc *cobra.Command) {
	upstream := gc.Run
	gc.Run = nil
	gc.Long += ".\nThe manifests that it deletes (-m) are recorded in the data folder of Tidings; the registry's next start deletes their layer records."
	gc.RunE = func(cmd *cobra.Command, args []string) error {
		flags := cmd.Flags()
		dryRun, _ := flags.GetBool("dry-run")
		untagged, _ := flags.GetBool("delete-untagged")
		quiet, _ := flags.GetBool("quiet")
		logrus.SetOutput(io.Discard) // distribution reads the file again, with the same warnings
		c, path, err := cli.Load(args)
		logrus.SetOutput(os.Stderr)
		cmd.SilenceUsage = true
		if err != nil {
			return err
		}
		if dryRun || !untagged {
			upstream(cmd, args)
			return nil
		}
		o, found, err := cli.Parse(c, path)
		if err != nil {
			return err
		}
		if !found || !o.Enabled || c.Proxy.RemoteURL != "" { // a pull-through cache publishes nothing
			upstream(cmd, args)
			return nil
		}
		return collect(c, o, storage.GCOpts{RemoveUntagged: true, Quiet: quiet})
	}
}

// collect does what distribution's command does, and records the manifests that it deletes.
func collect(c *configuration.Configuration, o *config.Options, opts storage.GCOpts) (err error) {
	notes, err := collected.Begin(o.CollectedDir())
	if err != nil {
		return fmt.Errorf("nothing was deleted, because the deletions cannot be recorded: %w; "+
			"run this command on the machine of the data folder %s, as a user with write access (the registry creates the folder at its first start)", err, o.Data)
	}
	defer func() { err = errors.Join(err, notes.Close()) }()
	if err := configureLog(c.Log); err != nil {
		return err
	}
	ctx := context.Background()
	driver, err := factory.Create(ctx, c.Storage.Type(), maps.Clone(c.Storage.Parameters()))
	if err != nil {
		return fmt.Errorf("failed to construct %s driver: %w", c.Storage.Type(), err)
	}
	registry, err := storage.NewRegistry(ctx, driver)
	if err != nil {
		return fmt.Errorf("failed to construct registry: %w", err)
	}
	if err := storage.MarkAndSweep(ctx, &recordingDriver{driver, notes}, registry, opts); err != nil {
		return fmt.Errorf("failed to garbage collect: %w", err)
	}
	return nil
}

// recordingDriver records a manifest before it is deleted.
type recordingDriver struct {
	storagedriver.StorageDriver
	notes *collected.Run
}

func (d *recordingDriver) Delete(ctx context.Context, path string) error {
	if note, ok := manifestAt(path); ok {
		if err := d.notes.Add(note); err != nil {
			return fmt.Errorf("record the deletion in the data folder: %w", err)
		}
	}
	return d.StorageDriver.Delete(ctx, path)
}

// manifestAt parses distribution's path of a manifest in a repository:
// /docker/registry/v2/repositories/<name>/_manifests/revisions/<algorithm>/<hex>.
func manifestAt(path string) (collected.Note, bool) {
	rest, ok := strings.CutPrefix(path, "/docker/registry/v2/repositories/")
	if !ok {
		return collected.Note{}, false
	}
	name, rest, ok := strings.Cut(rest, "/_manifests/revisions/")
	if !ok {
		return collected.Note{}, false
	}
	algorithm, hex, _ := strings.Cut(rest, "/")
	dgst := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	return collected.Note{Repository: name, Digest: dgst.String()}, dgst.Validate() == nil
}

// configureLog sets up the log as distribution does for its commands.
func configureLog(l configuration.Log) error {
	level, err := logrus.ParseLevel(string(l.Level))
	if err != nil {
		level = logrus.InfoLevel
	}
	logrus.SetLevel(level)
	logrus.SetReportCaller(l.ReportCaller)
	const nanoseconds = "2006-01-02T15:04:05.999999999Z07:00"
	switch l.Formatter {
	case "json":
		logrus.SetFormatter(&logrus.JSONFormatter{TimestampFormat: nanoseconds, DisableHTMLEscape: true})
	case "logstash":
		logrus.SetFormatter(&logrus.JSONFormatter{TimestampFormat: nanoseconds, FieldMap: logrus.FieldMap{logrus.FieldKeyFunc: "function"}})
	case "text", "":
		logrus.SetFormatter(&logrus.TextFormatter{TimestampFormat: nanoseconds})
	default:
		return fmt.Errorf("unsupported logging formatter: %q", l.Formatter)
	}
	if len(l.Fields) > 0 {
		logrus.AddHook(fields(l.Fields))
	}
	return nil
}

// fields adds log.fields of the configuration to every entry.
type fields map[string]any

func (fields) Levels() []logrus.Level { return logrus.AllLevels }

func (f fields) Fire(e *logrus.Entry) error {
	for name, value := range f {
		if _, ok := e.Data[name]; !ok {
			e.Data[name] = value
		}
	}
	return nil
}
