package repo

import "fmt"

// Suspend has every later write refused with ErrSuspended and this reason; nil
// lets them go on. It isn't kept across Open.
func (r *Repo) Suspend(why error) {
	if why == nil {
		r.suspended.Store(nil)
		return
	}
	why = fmt.Errorf("%w: %w", ErrSuspended, why)
	r.suspended.Store(&why)
}

// Suspended is what writes are refused with, nil if they aren't.
func (r *Repo) Suspended() error {
	if why := r.suspended.Load(); why != nil {
		return *why
	}
	return nil
}
