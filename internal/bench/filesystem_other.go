//go:build !linux

package main

func filesystem(string) string { return "unknown" }
