package terminal

import (
	"bufio"
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
// or "yes". Commands with --yes do not call it.
func Confirm(in io.Reader, out io.Writer, question string) error {
	if _, err := fmt.Fprintf(out, "%s [y/N] ", question); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(in, maxAnswer)).ReadString('\n')
	if err != nil {
		fmt.Fprintln(out) // the line of the question has no other end
	}
	if errors.Is(err, io.EOF) && line == "" {
		return ErrNoAnswer
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return ErrDeclined
}
