// Package deadletters keeps the events that a sink has given up, each with the reason.
package deadletters
