// Package config is every option of Tidings: its name, its default, what it
// means, and what is wrong with the value somebody wrote.
//
// It reads the `options:` of the registry's own configuration file strictly. An
// unknown key, a value of the wrong kind and two options that contradict each
// other are errors, and all of them are reported at once, each with its path.
// It opens no file but those named to Redis.Client and API.CheckToken; whether a
// folder can be written or a key fits is for those who use them.
//
// The ready-made configuration files beside it work as they stand.
package config
