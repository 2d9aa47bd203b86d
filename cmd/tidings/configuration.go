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

// pathOf is the configuration file that a command is about, found as the
// registry finds it.
func pathOf(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if path := os.Getenv("REGISTRY_CONFIGURATION_PATH"); path != "" {
		return path, nil
	}
	return "", errors.New("which configuration? name the registry's file, like config/embedded.yml, or set REGISTRY_CONFIGURATION_PATH")
}

// load reads a configuration file as the registry does.
func load(args []string) (*configuration.Configuration, string, error) {
	path, err := pathOf(args)
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

// options reads the options of a file that has to have some.
func options(args []string) (*config.Options, string, error) {
	c, path, err := load(args)
	if err != nil {
		return nil, path, err
	}
	o, found, err := config.FromRegistry(c)
	if err != nil {
		return nil, path, listed(path, err)
	}
	if !found {
		return nil, path, fmt.Errorf("%s has no entry `name: tidings` under middleware.repository", path)
	}
	return o, path, nil
}

// listed is one line a mistake, below the file's name.
func listed(path string, err error) error {
	return fmt.Errorf("%s is not right:\n  %s", path, strings.ReplaceAll(err.Error(), "\n", "\n  "))
}

// checkBeforeServing refuses wrong options before anything is opened. The
// registry itself would start in spite of them. What it says about the rest of
// the file, it says itself.
func checkBeforeServing(cmd *cobra.Command, args []string) error {
	logrus.SetOutput(io.Discard) // it will read the file again, and say this then
	c, path, err := load(args)
	logrus.SetOutput(os.Stderr)
	if err != nil {
		return nil
	}
	if _, _, err := config.FromRegistry(c); err != nil {
		cmd.SilenceUsage = true
		return listed(path, err)
	}
	return nil
}
