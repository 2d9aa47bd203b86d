// Package clock is the machine's clock as all of the program sees it.
package clock

import "time"

// Now is time.Now. A test's program replaces it before it starts anything, to
// live with a clock that is wrong.
var Now = time.Now
