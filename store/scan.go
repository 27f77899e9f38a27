package store

import (
	"bytes"
	"context"
	"fmt"
)

// Scan calls visit for the rows of a list by index and reads no object; see
// Interface.
func (s *Store) Scan(ctx context.Context, opts ListOptions, visit func(Entry) bool) (next string, err error) {
	if _, err := s.listed(opts); err != nil {
		return "", err
	}
	if opts.Index == "" {
		return "", fmt.Errorf("scan %s: needs an index: %w", opts.Kind, ErrInvalid)
	}
	c := &scanner{opts: opts, visit: visit}
	if opts.Continue != "" {
		if c.after, err = opts.decodeToken(opts.Continue); err != nil {
			return "", err
		}
		c.resumed = true
	}
	for !c.done {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err := s.readDurable(ctx, c.chunk); err != nil {
			return "", err
		}
	}
	return c.next, nil
}

// scanner goes through an index, over several read transactions.
type scanner struct {
	opts    ListOptions
	visit   func(Entry) bool
	after   position
	resumed bool // after is set
	stopped bool // visit wants no more
	done    bool
	next    string
	// plain is where a value is written that holds escapes.
	plain []byte
}

// chunk visits up to countChunk rows.
func (c *scanner) chunk(b buckets, _ uint64) error {
	rows := newIndexRows(b.indexes, c.opts, c.after, c.resumed)
	var last rowView
	for range countChunk {
		row, more, err := rows.nextRow()
		switch {
		case err != nil:
			return err
		case !more:
			c.done, c.next = true, ""
			return nil
		case c.stopped:
			// There is a row after the one at which visit had enough.
			c.done, c.next = true, c.opts.encodeToken(c.position(last))
			return nil
		}
		last = row
		c.stopped = !c.visit(Entry{Value: c.unescape(row.value), Namespace: row.namespace, Name: row.name})
	}
	c.after, c.resumed = last.position(), true
	return nil
}

// position is that of the row visited last; where none was in this transaction
// it is where the one before ended.
func (c *scanner) position(last rowView) position {
	if last.name == nil {
		return c.after
	}
	return last.position()
}

// unescape is the inverse of appendEscaped.
func (c *scanner) unescape(value []byte) []byte {
	if bytes.IndexByte(value, 0) < 0 {
		return value
	}
	c.plain = c.plain[:0]
	for {
		i := bytes.IndexByte(value, 0)
		if i < 0 {
			c.plain = append(c.plain, value...)
			return c.plain
		}
		c.plain = append(append(c.plain, value[:i]...), 0)
		value = value[min(i+2, len(value)):]
	}
}
