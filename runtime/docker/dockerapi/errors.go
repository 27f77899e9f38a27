package dockerapi

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
)

// IsNotFound says that the engine has no such container, image, network or exec.
func IsNotFound(err error) bool { return errdefs.IsNotFound(err) }

// IsConflict says that the name is taken, or the object is in a state that forbids it.
func IsConflict(err error) bool { return errdefs.IsConflict(err) }

// IsNotModified says that the container already is in the asked state.
func IsNotModified(err error) bool { return errdefs.IsNotModified(err) }

// IsUnauthorized says that the engine or the registry behind it wants other credentials.
func IsUnauthorized(err error) bool {
	return errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err)
}

// IsInvalid says that the engine refused the request itself.
func IsInvalid(err error) bool { return errdefs.IsInvalidArgument(err) }

// IsUnavailable says that the engine did not answer, or broke off while it did; the same
// call may succeed later.
func IsUnavailable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var op *net.OpError
	return client.IsErrConnectionFailed(err) || errdefs.IsUnavailable(err) ||
		errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) ||
		errors.As(err, &op) || strings.Contains(err.Error(), "Cannot connect to the Docker daemon")
}
