package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the user and system time of all threads of the process, or 0 if it has
// ended. It reads the process' CPU-time clock, see clock_getcpuclockid(3), because
// /proc/PID/stat has a resolution of only 10 ms.
func (p *Process) CPU() time.Duration {
	const schedulerClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|schedulerClock), &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Memory returns the current and the peak resident memory of the process in bytes.
func (p *Process) Memory() (current, peak int64) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(status) {
		fields := bytes.Fields(line)
		if len(fields) != 3 {
			continue
		}
		kib, _ := strconv.ParseInt(string(fields[1]), 10, 64)
		switch string(fields[0]) {
		case "VmRSS:":
			current = kib << 10
		case "VmHWM:":
			peak = kib << 10
		}
	}
	return current, peak
}
