package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/config/explain"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/notifier/announce"
)

func announcePreviewCommand() *cobra.Command {
	var card string
	var asJSON bool
	c := &cobra.Command{
		Use:   "preview <config> [<image>]",
		Short: "`announce preview` shows the post of an image, and whether it would be posted",
		Long: "`announce preview` shows the post that an image in the registry's storage would have if it were pushed now, and whether it would be\n" +
			"posted, or why not. Without an image it shows a post with sample facts. Links, mentions and hashtags are shown as [text](target).\n" +
			"An image that is named by its digest has the tags that it has in storage; one that is named by a tag has only this tag.\n" +
			"It changes nothing, and can be used while the registry is running; earlier announcements are then not known.",
		Example: "  tidings announce preview config.yml oss/app:v1.2.3\n" +
			"  tidings announce preview config.yml --card card.png",
		Args:         cobra.RangeArgs(1, 2),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return announcePreview(ctx, cmd.OutOrStdout(), args, card, asJSON)
		}),
	}
	c.Flags().StringVar(&card, "card", "", "write the picture of the post to this new PNG file")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func announcePreview(ctx context.Context, out io.Writer, args []string, card string, asJSON bool) error {
	o, _, err := announceOptions(args[:1])
	if err != nil {
		return err
	}
	host, _, err := cli.Load(args[:1])
	if err != nil {
		return err
	}
	image := ""
	if len(args) > 1 {
		image = args[1]
	}
	p, err := middleware.PreviewAnnouncement(ctx, host, image)
	if err != nil {
		return err
	}
	if card != "" {
		if p.Picture == nil {
			return errors.New("the post has no picture, so no file is written; the option announce.card decides whether images have one")
		}
		if err := cli.CreateFile(card, func(w io.Writer) error { _, err := w.Write(p.Picture); return err }); err != nil {
			return err
		}
	}
	r, err := reportPreview(p, image == "", o.Announce)
	if err != nil {
		return err
	}
	r.card = card
	if asJSON {
		return cli.PrintJSON(out, r)
	}
	return r.print(out, o.Announce)
}

// print prints the report for people.
func (r previewReport) print(out io.Writer, a *config.Announce) error {
	w := cli.NewTable(out)
	row := w.Row
	row("image", "%s", r.Image)
	row("decision", "%s", r.sentence())
	if r.Reason == announce.ReasonNoTag {
		row("", "announced are %s", explain.Tags(a))
	}
	if r.Unchecked != "" {
		row("", "not checked: whether it was announced before; %s", r.Unchecked)
	}
	if a.DryRun {
		row("", "posts are only logged (announce.dry_run)")
	}
	if r.Post != nil {
		r.Post.print(row)
	}
	if r.card != "" {
		row("card", "written to %s", r.card)
	}
	return w.Flush()
}

func (p *previewPost) print(row func(string, string, ...any)) {
	row("length", "%d of %d graphemes, %d of %d bytes", p.Graphemes, p.MaxGraphemes, p.Bytes, p.MaxBytes)
	topic := "text"
	for line := range strings.SplitSeq(p.Marked, "\n") {
		row(topic, "%s", line)
		topic = ""
	}
	if p.Link != "" {
		row("link", "%s", p.Link)
	}
	if len(p.Langs) > 0 {
		row("languages", "%s", strings.Join(p.Langs, ", "))
	}
	switch embed := p.Picture; {
	case embed == nil:
		row("picture", "none")
	case embed.Link != "":
		row("picture", "preview of the link, %d bytes", embed.Bytes)
		row("title", "%s", embed.Title)
		row("description", "%s", embed.Description)
	default:
		row("picture", "image, %d bytes", embed.Bytes)
		row("alt text", "%s", embed.Alt)
	}
}
