// Package config has all options of Tidings, with their names, defaults and
// documentation.
//
// It parses the `options:` of the registry's configuration strictly: an unknown key,
// a value of the wrong type and contradicting options are errors, which are
// reported all at once, each with its path. The rule for a value is that of the
// package that uses it, which config asks. It opens no files, except in
// Redis.Client and API.CheckToken.
//
// The configuration files in this folder work as they are.
package config
