package terminal

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Is reports whether a reader or writer is a terminal.
func Is(stream any) bool {
	_, ok := columns(stream)
	return ok
}

// usualColumns is the width of a terminal that does not know its own, such as one without a
// window.
const usualColumns = 80

// columns returns the width of a terminal in characters; ok is false if stream is none.
func columns(stream any) (n int, ok bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	if size.Col == 0 {
		return usualColumns, true
	}
	return int(size.Col), true
}

// ClearLine removes what a terminal has on the line of the cursor, such as the ^C of an
// interrupt. Elsewhere it does nothing.
func ClearLine(out io.Writer) {
	if Is(out) && drawable() {
		fmt.Fprint(out, clearLine)
	}
}

// drawable reports whether a terminal can clear a line, which a bar needs.
func drawable() bool {
	term := os.Getenv("TERM")
	return term != "" && term != "dumb"
}
