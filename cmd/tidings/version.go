package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "`version` prints the versions of Tidings, distribution and Go",
		Example: "  tidings version",
		Args:    cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			info, _ := debug.ReadBuildInfo()
			fmt.Fprintln(cmd.OutOrStdout(), version(info))
		},
	}
}

// versionFlag makes the registry's --version flag print the same.
func versionFlag(root *cobra.Command) {
	before := root.Run
	root.Run = func(cmd *cobra.Command, args []string) {
		if shown, _ := cmd.Flags().GetBool("version"); shown {
			info, _ := debug.ReadBuildInfo()
			fmt.Fprintln(cmd.OutOrStdout(), version(info))
			return
		}
		before(cmd, args)
	}
}

// version formats build information: "tidings v0.1.0 (1a2b3c4d5e6f), distribution
// v3.1.2, go1.26.0 linux/amd64".
func version(info *debug.BuildInfo) string {
	own, host, revision, modified := "(unknown)", "(unknown)", "", ""
	if info != nil {
		if info.Main.Version != "" {
			own = info.Main.Version
		}
		for _, dep := range info.Deps {
			if dep.Path == "github.com/distribution/distribution/v3" {
				host = dep.Version
			}
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = ", modified"
			}
		}
	}
	if revision != "" {
		own += " (" + revision + modified + ")"
	}
	return fmt.Sprintf("tidings %s, distribution %s, %s %s/%s", own, host, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
