// Package cli is what the commands share: the configuration file, the data folder, requests
// to a running registry, and output.
package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"gopkg.in/yaml.v3"

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
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, path, err
	}
	c, err := configuration.Parse(bytes.NewReader(raw))
	if err != nil {
		return nil, path, fmt.Errorf("%s: %w", path, cmp.Or(checkVersion(raw), err))
	}
	return c, path, nil
}

// checkVersion returns an error for a file with another version than that of the registry's
// configuration, whose parser does not say which one it wants.
func checkVersion(raw []byte) error {
	var file struct{ Version string }
	if err := yaml.Unmarshal(raw, &file); err != nil || file.Version == registryVersion {
		return nil
	}
	if file.Version == "" {
		return errors.New("it has no version, so it is no configuration of a registry; one begins with `version: " + registryVersion + "`")
	}
	return fmt.Errorf("version %q is not supported; the version of a configuration is %s", file.Version, registryVersion)
}

// registryVersion is the version of the configuration of distribution v3.
const registryVersion = "0.1"

// Options reads the options of a file, which must have a tidings entry.
func Options(args []string) (*config.Options, string, error) {
	c, path, err := Load(args)
	if err != nil {
		return nil, path, err
	}
	o, found, err := Parse(c, path)
	if err != nil {
		return nil, path, err
	}
	if !found {
		return nil, path, fmt.Errorf("%s has no entry `name: tidings` under middleware.repository", path)
	}
	return o, path, nil
}

// Parse returns the options of the file at path, which Load has read. found is false if it
// has no tidings entry. It lists all errors.
func Parse(c *configuration.Configuration, path string) (o *config.Options, found bool, err error) {
	raw, err := os.ReadFile(path)
	if err == nil {
		err = config.CheckKeys(raw)
	}
	if err == nil {
		o, found, err = config.FromRegistry(c)
	}
	if err != nil {
		return nil, false, ListErrors(path, err)
	}
	return o, found, nil
}

// ListErrors formats the errors of a file, one a line.
func ListErrors(path string, err error) error {
	return fmt.Errorf("%s is invalid:\n  %s", path, strings.ReplaceAll(err.Error(), "\n", "\n  "))
}
