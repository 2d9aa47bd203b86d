package terminal

import (
	"bytes"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY returns both ends of a pseudo-terminal.
func openPTY(t *testing.T, columns uint16) (control, terminal *os.File) {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals (mount devpts): %v", err)
	}
	t.Cleanup(func() { control.Close() })
	fd := int(control.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err == nil {
		terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return control, terminal
}

// The ^C of an interrupt is removed from a terminal, and nothing is written elsewhere.
func TestClearLine(t *testing.T) {
	t.Setenv("TERM", "xterm")
	control, terminal := openPTY(t, 80)
	ClearLine(terminal)
	buf := make([]byte, 64)
	_ = control.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := control.Read(buf); err != nil || string(buf[:n]) != clearLine {
		t.Errorf("wrote %q, %v", buf[:n], err)
	}
	var file bytes.Buffer
	if ClearLine(&file); file.Len() != 0 {
		t.Errorf("wrote %q", file.String())
	}
}

// On a terminal a bar fits into the line; one that cannot clear a line has none.
func TestTerminal(t *testing.T) {
	for name, test := range map[string]struct {
		columns uint16
		term    string
		want    int // width of the bar's line; 0: no bar
	}{
		"usual":     {80, "xterm", 80},
		"narrow":    {40, "xterm", 40},
		"no window": {0, "xterm", usualColumns},
		"dumb":      {80, "dumb", 0},
		"unknown":   {80, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TERM", test.term)
			control, terminal := openPTY(t, test.columns)
			if !Is(terminal) {
				t.Error("it is no terminal")
			}
			p := NewProgress(terminal, "manifests", 10)
			if got := p.width != nil; got != (test.want != 0) {
				t.Fatalf("shows a bar: %v", got)
			}
			p.Note("0123456789012345678901234567890123456789012345678901234567890123456789")
			p.mu.Lock()
			p.show()
			p.mu.Unlock()
			p.End()
			buf := make([]byte, 4096)
			_ = control.SetReadDeadline(time.Now().Add(time.Second))
			n, err := control.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			line, _, _ := bytes.Cut(buf[:n], []byte("\r\n"))
			line = line[bytes.LastIndex(line, []byte(clearLine))+len(clearLine):]
			if got := len([]rune(string(line))); test.want != 0 && got != test.want-margin {
				t.Errorf("the line has %d characters: %q", got, line)
			}
		})
	}
}
