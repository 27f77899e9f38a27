package artifact

import "errors"

// Errors that callers tell apart.
var (
	// ErrInvalid: the URI, namespace or path is not one that a repository takes.
	ErrInvalid = errors.New("invalid artifact location")
	// ErrNotFound: there is nothing at the URI.
	ErrNotFound = errors.New("artifact not found")
	// ErrUnsafe: what is there is not what an artifact may be made of: a link
	// out of it, a FIFO, a socket, a device, another user's file.
	ErrUnsafe = errors.New("artifact holds something that is not allowed")
	// ErrClosed: the repository or the hasher is closed.
	ErrClosed = errors.New("artifact repository is closed")
)
