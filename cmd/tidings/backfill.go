package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/notifier/backfill"
)

type backfillFlags struct {
	repository, rate           string
	dryRun, stop, status, json bool
}

func backfillCommand() *cobra.Command {
	var flags backfillFlags
	c := &cobra.Command{
		Use:   "backfill <config>",
		Short: "`backfill` writes the records of images that were pushed before Tidings was installed",
		Long: "`backfill` needs the registry to be running. It goes through the registry's storage, tagged and untagged manifests, and writes the\n" +
			"records of public repositories that are missing. Nothing is posted and nothing is counted. New pushes go first: a backfill leaves\n" +
			"them three tenths of the account's points, and pauses while more is spent.\n\n" +
			"The registry does the work. Interrupting this command does not end the backfill, which also continues after a restart; run the\n" +
			"command again to see its progress, or with --stop to end it.",
		Example: "  tidings backfill --dry-run config.yml\n" +
			"  tidings backfill --repository 'oss/**' --rate 5/s config.yml\n" +
			"  tidings backfill --stop config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return runBackfill(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, flags)
		}),
	}
	c.Flags().StringVar(&flags.repository, "repository", "", "only the repositories that a glob matches, such as oss/**")
	c.Flags().StringVar(&flags.rate, "rate", "", "at most so many manifests in a time, such as 5/s, 100/m or 1000/h")
	c.Flags().BoolVar(&flags.dryRun, "dry-run", false, "only count what is missing, and estimate how long it would take")
	c.Flags().BoolVar(&flags.stop, "stop", false, "end the backfill that runs")
	c.Flags().BoolVar(&flags.status, "status", false, "print the state of the last backfill and begin none")
	c.Flags().BoolVar(&flags.json, "json", false, "print the final state as JSON")
	return c
}

// check returns an error if more than one of the flags is set that say what to do.
func (f *backfillFlags) check() error {
	var set []string
	for _, flag := range []struct {
		name string
		set  bool
	}{{"--stop", f.stop}, {"--status", f.status}, {"--dry-run", f.dryRun}} {
		if flag.set {
			set = append(set, flag.name)
		}
	}
	if len(set) > 1 {
		return fmt.Errorf("%s exclude each other: pass one of them", strings.Join(set, " and "))
	}
	return nil
}

// backfillPoll is how often the progress is asked for.
const backfillPoll = 500 * time.Millisecond

func runBackfill(ctx context.Context, out, progress io.Writer, args []string, flags backfillFlags) error {
	if err := flags.check(); err != nil {
		return err
	}
	perSecond, err := parseRate(flags.rate)
	if err != nil {
		return err
	}
	c, err := newAdminClient(args)
	if err != nil {
		return err
	}
	var job backfill.Job
	ended := false // before --stop
	switch {
	case flags.stop:
		job, ended, err = c.stopBackfill(ctx)
	case flags.status:
		err = c.call(ctx, "GET", "/v1/backfill", nil, &job)
	default:
		job, err = c.backfill(ctx, progress, backfill.Request{Repository: flags.repository, Rate: perSecond, DryRun: flags.dryRun})
	}
	if err != nil {
		return err
	}
	if flags.json {
		return cli.PrintJSON(out, job)
	}
	if ended {
		fmt.Fprintln(out, "No backfill is running, so there is nothing to stop. The last one:")
	}
	_, err = io.WriteString(out, backfillText(&job))
	return err
}

// stopBackfill ends the job that runs, and returns the last one; ended is true if it had ended
// before.
func (c *adminClient) stopBackfill(ctx context.Context) (job backfill.Job, ended bool, err error) {
	if err := c.call(ctx, "GET", "/v1/backfill", nil, &job); err != nil || !job.Running() {
		return job, true, err
	}
	err = c.call(ctx, "DELETE", "/v1/backfill", nil, &job)
	return job, job.Phase != backfill.Stopped, err
}

// backfill begins a job, or follows the one that runs, and returns it when it has ended.
func (c *adminClient) backfill(ctx context.Context, progress io.Writer, r backfill.Request) (job backfill.Job, err error) {
	query := url.Values{"repository": {r.Repository}, "perSecond": {strconv.FormatFloat(r.Rate, 'g', -1, 64)}, "dryRun": {strconv.FormatBool(r.DryRun)}}
	err = c.call(ctx, "POST", "/v1/backfill", query, &job)
	var failed *admin.StatusError
	if errors.As(err, &failed) && failed.Name == "Running" {
		if err = c.call(ctx, "GET", "/v1/backfill", nil, &job); err == nil && job.Running() && job.Request != r {
			return job, fmt.Errorf("another backfill is running, %s; `tidings backfill --status` shows it, and --stop ends it", requestText(&job.Request))
		}
	}
	if err != nil {
		return job, err
	}
	bar := terminal.NewProgress(progress, "manifests", 0)
	defer bar.End()
	bar.Continue(backfillSteps(&job))
	for job.Running() {
		bar.Set(backfillSteps(&job))
		bar.Note(backfillNote(&job))
		select {
		case <-ctx.Done():
			return job, errors.New("interrupted; the registry continues the backfill, and `tidings backfill --stop` ends it")
		case <-time.After(backfillPoll):
		}
		if err := c.call(ctx, "GET", "/v1/backfill", nil, &job); err != nil && ctx.Err() == nil {
			return job, err
		}
	}
	bar.Set(backfillSteps(&job))
	bar.Note("")
	return job, nil
}

// backfillSteps returns how many of how many manifests a job has counted or recorded; total is 0
// while it counts.
func backfillSteps(j *backfill.Job) (done, total int64) {
	if j.DryRun || j.Phase == backfill.Counting {
		return j.Manifests, 0
	}
	return j.Recorded, j.Missing
}

// backfillNote is what is shown of a running job after its numbers.
func backfillNote(j *backfill.Job) string {
	switch {
	case j.Error != "":
		return "trying again: " + j.Error
	case j.Waiting != "":
		return "waiting: " + j.Waiting
	case j.Phase == backfill.Counting:
		return fmt.Sprintf("counting; %d without records", j.Missing)
	case j.Phase == backfill.Finishing:
		return "the last records are being written"
	case !j.Ends.IsZero():
		return "until about " + j.Ends.Local().Format("2006-01-02 15:04")
	}
	return ""
}

// backfillText describes a job, over several lines.
func backfillText(j *backfill.Job) string {
	var b strings.Builder
	of := requestText(&j.Request)
	switch {
	case j.DryRun && j.Phase == backfill.Done:
		fmt.Fprintf(&b, "%s without records, of %s in storage (%s).\n", cli.Count(j.Missing, "manifest"), cli.Count(j.Manifests, "manifest"), of)
		fmt.Fprintf(&b, "They need %s", cli.Count(j.Creates, "record"))
		if j.Points > 0 {
			fmt.Fprintf(&b, ", which cost %s", cli.Count(j.Points, "point"))
			if wait := j.Ends.Sub(j.Ended); !j.Ends.IsZero() {
				fmt.Fprintf(&b, ": about %s under the budget of the account", hours(wait))
			}
		}
		b.WriteString(".\n")
	case j.Phase == backfill.Done:
		fmt.Fprintf(&b, "Complete (%s): %s recorded with %s, in %s.\n", of, cli.Count(j.Recorded, "manifest"), cli.Count(j.Records, "record"), hours(j.Ended.Sub(j.Started)))
	case j.Phase == backfill.Stopped:
		fmt.Fprintf(&b, "Stopped (%s): %s of %d recorded. Another backfill writes the rest.\n", of, cli.Count(j.Recorded, "manifest"), j.Missing)
	default:
		fmt.Fprintf(&b, "Running (%s): %s, %d of %d manifests recorded", of, j.Phase, j.Recorded, j.Missing)
		if note := backfillNote(j); note != "" {
			b.WriteString("; " + note)
		}
		b.WriteString(".\n")
	}
	if j.Unowned > 0 {
		fmt.Fprintf(&b, "%s left out, because the handle of their owner cannot be resolved; run it again once it can be.\n", cli.Count(j.Unowned, "manifest"))
	}
	if j.Purged > 0 {
		fmt.Fprintf(&b, "%s left out until the next push.\n", cli.Count(j.Purged, "purged repository"))
	}
	return b.String()
}

func requestText(r *backfill.Request) string {
	text := "all public repositories"
	if r.Repository != "" {
		text = "public repositories matching " + r.Repository
	}
	if r.Rate > 0 {
		text += ", " + rateText(r.Rate)
	}
	if r.DryRun {
		text += ", dry run"
	}
	return text
}

// rateText describes a rate in manifests a second.
func rateText(perSecond float64) string {
	if perSecond == 1 {
		return "1 manifest a second"
	}
	return fmt.Sprintf("%.4g manifests a second", perSecond)
}

// hours formats a duration in a unit that suits it.
func hours(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f minutes", d.Minutes())
	case d < 72*time.Hour:
		return fmt.Sprintf("%.0f hours", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}

// parseRate parses a rate such as "5/s" and returns it per second; "" is 0.
func parseRate(text string) (perSecond float64, err error) {
	if text == "" {
		return 0, nil
	}
	number, unit, _ := strings.Cut(text, "/")
	per := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || per == 0 || !(n > 0) || n/per > 1e6 {
		return 0, fmt.Errorf("--rate %q is invalid; write a number and a time, such as 5/s, 100/m or 1000/h", text)
	}
	return n / per, nil
}
