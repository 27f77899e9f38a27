package bundle

import (
	"errors"
	"fmt"

	"github.com/skiff-ml/skiff/api/problem"
)

// ErrChanged is a writer's: what was read is not what the manifest announced.
var ErrChanged = errors.New("it changed while it was exported")

// refuse is a problem with a bundle as a whole, of class problem.ErrInvalid.
func refuse(hint, format string, args ...any) error {
	return problem.List{{Object: "bundle", Err: fmt.Errorf(format, args...), Hint: hint}}
}
