package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/config"
)

// configPath returns the configuration file of a command, by the registry's
// rules.
func configPath(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if path := os.Getenv("REGISTRY_CONFIGURATION_PATH"); path != "" {
		return path, nil
	}
	return "", errors.New("no configuration file: pass one, such as config/embedded.yml, or set REGISTRY_CONFIGURATION_PATH")
}

// load reads a configuration file as the registry does.
func load(args []string) (*configuration.Configuration, string, error) {
	path, err := configPath(args)
	if err != nil {
		return nil, "", err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, path, err
	}
	defer file.Close()
	c, err := configuration.Parse(file)
	if err != nil {
		return nil, path, fmt.Errorf("%s: %w", path, err)
	}
	return c, path, nil
}

// options reads the options of a file, which must have a tidings entry.
func options(args []string) (*config.Options, string, error) {
	c, path, err := load(args)
	if err != nil {
		return nil, path, err
	}
	o, found, err := config.FromRegistry(c)
	if err != nil {
		return nil, path, listErrors(path, err)
	}
	if !found {
		return nil, path, fmt.Errorf("%s has no entry `name: tidings` under middleware.repository", path)
	}
	return o, path, nil
}

// listErrors formats the errors of a file, one a line.
func listErrors(path string, err error) error {
	return fmt.Errorf("%s is invalid:\n  %s", path, strings.ReplaceAll(err.Error(), "\n", "\n  "))
}

// checkBeforeServing refuses invalid options before anything is opened. The
// registry itself would start in spite of them. It reports errors in the rest of
// the file when it reads it.
func checkBeforeServing(cmd *cobra.Command, args []string) error {
	logrus.SetOutput(io.Discard) // the registry reads the file again, with the same warnings
	c, path, err := load(args)
	logrus.SetOutput(os.Stderr)
	if err != nil {
		return nil
	}
	if _, _, err := config.FromRegistry(c); err != nil {
		cmd.SilenceUsage = true
		return listErrors(path, err)
	}
	return nil
}
