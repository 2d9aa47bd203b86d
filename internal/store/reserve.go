package store

// Free disk space, in bytes, below which Space is an error.
const (
	DefaultReserve = 1 << 30
	// MinReserve keeps a database from meeting a full disk, which it may not survive
	// without a restart.
	MinReserve = 1 << 20
)
