package artifact

import (
	"context"
	"fmt"
)

// Fetch makes contents be here, so that they can be read and mounted. What this
// machine alone keeps is here or nowhere: the latter is ErrNotFound.
func (r *Repository) Fetch(_ context.Context, namespace, uri string) error {
	if _, err := r.Locate(namespace, uri); err != nil {
		return err
	}
	if !r.Exists(namespace, uri) {
		return fmt.Errorf("artifact %s: %w", uri, ErrNotFound)
	}
	return nil
}
