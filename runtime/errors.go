package runtime

import "errors"

// Errors that callers tell apart.
var (
	// ErrNotFound: the backend has no such container.
	ErrNotFound = errors.New("no such container")
	// ErrConflict: a container of that name exists and is another one.
	ErrConflict = errors.New("container name is taken by another container")
	// ErrExited: the container has run and will not run again.
	ErrExited = errors.New("container has already exited")
	// ErrImageUnavailable: the image cannot be had (unknown, unreachable,
	// refused). The message says which and what to do.
	ErrImageUnavailable = errors.New("image is not available")
	// ErrImageChanged: the image is to be had, and is not the one that was asked
	// for by its digest or id, which is not.
	ErrImageChanged = errors.New("image is not the one that is wanted")
	// ErrNotSupported: this backend cannot do that at all.
	ErrNotSupported = errors.New("not supported by this runtime")
	// ErrUnavailable: the engine behind the backend does not answer; try later.
	ErrUnavailable = errors.New("runtime is not reachable")
	// ErrPolicy: the final container configuration is not allowed.
	ErrPolicy = errors.New("not allowed by the container policy")
)
