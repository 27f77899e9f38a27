package store

import (
	"bytes"
	"context"
	"fmt"
)

// Namespaces implements Interface.
func (s *Store) Namespaces(ctx context.Context, kind string) ([]string, error) {
	if _, err := s.kind(kind); err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var out []string
	err := s.readDurable(ctx, func(b buckets, _ uint64) error {
		out = nil
		cursor := b.objects.Cursor()
		prefix := append([]byte(kind), 0)
		row, _ := cursor.Seek(prefix)
		for row != nil && bytes.HasPrefix(row, prefix) {
			key, err := parseRawKey(row)
			if err != nil {
				return err
			}
			out = append(out, key.Namespace)
			past := append(append(bytes.Clone(prefix), key.Namespace...), 1) // a NUL stands behind it
			row, _ = cursor.Seek(past)
		}
		return nil
	})
	return out, err
}
