package host

import "errors"

// Errors that callers tell apart.
var (
	// ErrHostile: something in the folder is not what a launcher leaves (a
	// link, a FIFO, a file of several names, one that is too large).
	ErrHostile = errors.New("not a launcher's file")
	// ErrNoLauncher: no launcher listens: it has not come up yet, or is gone.
	ErrNoLauncher = errors.New("no launcher listens")
	// ErrOtherCommand: the launcher has run another command than the one asked for.
	ErrOtherCommand = errors.New("the launcher has run another command")
	// ErrLost: the launcher ended and left no exit record.
	ErrLost = errors.New("the launcher ended without an exit record")
	// ErrClosed: the Host has been closed.
	ErrClosed = errors.New("host is closed")
)
