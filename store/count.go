package store

import (
	"bytes"
	"context"
	"unsafe"

	bolt "go.etcd.io/bbolt"
)

// countChunk is how many rows one read transaction of a count visits: they are
// keys alone, so there may be more than a list's.
const countChunk = 20 * MaxPage

// Count is how many objects List would give over all pages, at most most. It
// steps over keys, of which it looks at nothing but the bounds, so a hundred
// thousand take some milliseconds.
func (s *Store) Count(ctx context.Context, opts ListOptions, most int) (int, error) {
	if _, err := s.listed(opts); err != nil {
		return 0, err
	}
	c := &counter{opts: opts, most: most}
	for !c.done && c.n < most {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if err := s.readDurable(ctx, c.chunk); err != nil {
			return 0, err
		}
	}
	return c.n, nil
}

// counter counts the keys of some ranges, over several read transactions.
type counter struct {
	opts ListOptions
	most int
	n    int
	// ranges are those that are left, nil before the first transaction. The first
	// one begins at from.
	ranges []keyRange
	begun  bool
	done   bool
}

// keyRange are the keys from one on that begin with a prefix and are less than
// high, where that is not nil.
type keyRange struct{ from, prefix, high []byte }

// chunk counts up to countChunk keys.
func (c *counter) chunk(b buckets, _ uint64) error {
	bucket := b.indexes
	if c.opts.Index == "" {
		bucket = b.objects
	}
	if !c.begun {
		c.begun = true
		if c.opts.Index == "" {
			prefix := keyPrefix(c.opts)
			c.ranges = []keyRange{{from: prefix, prefix: prefix}}
		} else {
			for _, source := range namespaceSources(b.indexes, c.opts) {
				c.ranges = append(c.ranges, keyRange{from: source.first(), prefix: source.bound, high: source.high})
			}
		}
	}
	budget := min(countChunk, c.most-c.n)
	for len(c.ranges) > 0 {
		r := &c.ranges[0]
		end := r.end(bucket.Cursor())
		cursor := bucket.Cursor()
		// Keys lie in the transaction's pages, so the one that ends the range is
		// known by its place, and none has to be read.
		for key, _ := cursor.Seek(r.from); key != nil && unsafe.SliceData(key) != end; key, _ = cursor.Next() {
			if budget == 0 {
				r.from = bytes.Clone(key)
				return nil
			}
			budget--
			c.n++
		}
		c.ranges = c.ranges[1:]
	}
	c.done = true
	return nil
}

// end is where the first key behind the range lies; nil where there is none.
func (r *keyRange) end(cursor *bolt.Cursor) *byte {
	past := pastPrefix(r.prefix)
	if r.high != nil && bytes.Compare(r.high, past) < 0 {
		past = r.high
	}
	if bytes.Compare(past, r.from) < 0 {
		past = r.from // there is nothing in it
	}
	key, _ := cursor.Seek(past)
	return unsafe.SliceData(key)
}
