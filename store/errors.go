package store

import "errors"

// Errors that callers tell apart.
var (
	// ErrNotFound: there is no such object.
	ErrNotFound = errors.New("not found")
	// ErrExists: an object of that name exists.
	ErrExists = errors.New("already exists")
	// ErrConflict: the object changed since it was read.
	ErrConflict = errors.New("the object has changed; read it again")
	// ErrGone: the revision is older than the change log reaches; list again.
	ErrGone = errors.New("revision is too old")
	// ErrInvalid: the request itself is wrong.
	ErrInvalid = errors.New("invalid")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store is closed")
	// ErrFull: the disk is full; reads go on.
	ErrFull = errors.New("storage is full")
	// ErrCorrupt: the file or a value in it is damaged.
	ErrCorrupt = errors.New("store is damaged")
	// ErrKey: the key of the sealed kinds is missing, or is another one than the
	// objects were sealed with.
	ErrKey = errors.New("the key of the secrets does not fit")
	// ErrNewer: the file was written by a newer skiff.
	ErrNewer = errors.New("store was written by a newer skiff")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store is in use by another process")
)
