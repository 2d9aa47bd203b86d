package terminal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

var (
	// ErrDeclined is returned by Confirm if the answer is not yes.
	ErrDeclined = errors.New("not confirmed; nothing was changed")
	// ErrNoAnswer is returned by Confirm if the input ends without an answer.
	ErrNoAnswer = errors.New("there is no input that confirms it; pass --yes to skip the question")
)

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 1 << 10

// Confirm asks a question, such as "Delete 3 images?", and returns nil if the answer is "y"
// or "yes". Commands with --yes do not call it. When ctx ends it returns ErrDeclined, and in
// goes on being read.
func Confirm(ctx context.Context, in io.Reader, out io.Writer, question string) error {
	if _, err := fmt.Fprintf(out, "%s [y/N] ", question); err != nil {
		return err
	}
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() { // a read of a terminal cannot be interrupted
		line, err := bufio.NewReader(io.LimitReader(in, maxAnswer)).ReadString('\n')
		answered <- answer{line, err}
	}()
	var a answer
	select {
	case a = <-answered:
	case <-ctx.Done():
		fmt.Fprintln(out)
		return ErrDeclined
	}
	if a.err != nil {
		fmt.Fprintln(out) // the line of the question has no other end
	}
	if errors.Is(a.err, io.EOF) && a.line == "" {
		return ErrNoAnswer
	}
	if a.err != nil && !errors.Is(a.err, io.EOF) {
		return fmt.Errorf("read the answer: %w", a.err)
	}
	switch strings.ToLower(strings.TrimSpace(a.line)) {
	case "y", "yes":
		return nil
	}
	return ErrDeclined
}
