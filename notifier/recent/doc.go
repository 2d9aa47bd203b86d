// Package recent decodes pushes, and keeps the latest so that each is decoded once.
package recent
