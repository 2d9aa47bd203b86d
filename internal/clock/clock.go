// Package clock is the wall clock of the program.
package clock

import "time"

// Now returns the current time. Test programs replace it at their start, to simulate a
// wrong clock.
var Now = time.Now
