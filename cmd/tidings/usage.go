package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// explainUsage lets the errors of a command and its subcommands about wrong flags, arguments
// and subcommands say what is right. Without it an unknown subcommand is no error.
func explainUsage(c *cobra.Command) {
	for _, sub := range c.Commands() {
		explainUsage(sub)
	}
	if valid := c.Args; valid != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := valid(c, args); err != nil {
				return fmt.Errorf("%w; usage: %s", err, c.UseLine())
			}
			return nil
		}
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; `%s --help` lists the flags", flagError(err), c.CommandPath())
	})
	if c.HasSubCommands() && !c.Runnable() {
		c.RunE = runSubcommand
		c.SilenceUsage = true
		c.DisableFlagsInUseLine = true
	}
}

// flagError says what the value of a flag must be, where the error names a function of strconv.
func flagError(err error) error {
	var failed *strconv.NumError
	if !errors.As(err, &failed) {
		return err
	}
	must := "must be a whole number"
	switch {
	case errors.Is(err, strconv.ErrRange):
		must = "is out of range"
	case failed.Func == "ParseBool":
		must = "must be true or false"
	case failed.Func == "ParseUint":
		must = "must be a whole number, and not negative"
	}
	return errors.New(strings.TrimSuffix(err.Error(), failed.Error()) + must)
}

// runSubcommand runs if the arguments begin with no subcommand.
func runSubcommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	c.SuggestionsMinimumDistance = 2
	hint := fmt.Sprintf("`%s --help` lists the commands", c.CommandPath())
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q for %q; %s", args[0], c.CommandPath(), hint)
}
