// Package cli is what the commands share: the configuration file, the data folder, requests
// to a running registry, and output.
package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/distribution/distribution/v3/configuration"

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

// Load reads a configuration file as the registry does.
func Load(args []string) (*configuration.Configuration, string, error) {
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

// Options reads the options of a file, which must have a tidings entry.
func Options(args []string) (*config.Options, string, error) {
	c, path, err := Load(args)
	if err != nil {
		return nil, path, err
	}
	o, found, err := config.FromRegistry(c)
	if err != nil {
		return nil, path, ListErrors(path, err)
	}
	if !found {
		return nil, path, fmt.Errorf("%s has no entry `name: tidings` under middleware.repository", path)
	}
	return o, path, nil
}

// ListErrors formats the errors of a file, one a line.
func ListErrors(path string, err error) error {
	return fmt.Errorf("%s is invalid:\n  %s", path, strings.ReplaceAll(err.Error(), "\n", "\n  "))
}
