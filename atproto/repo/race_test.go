//go:build race

package repo

func init() { underRace = true }
