package store

import "context"

// countChunk is how many rows one read transaction of a count visits: they are
// keys alone, so there may be more than a list's.
const countChunk = 20 * MaxPage

// Count is how many objects List would give over all pages, at most most. It
// reads keys and no object, so a hundred thousand take some ten milliseconds.
func (s *Store) Count(ctx context.Context, opts ListOptions, most int) (int, error) {
	if _, err := s.listed(opts); err != nil {
		return 0, err
	}
	n, more, resumed := 0, true, false
	var after position
	for more && n < most {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		err := s.readDurable(ctx, func(b buckets, _ uint64) error {
			if opts.Index != "" {
				rows := newIndexRows(b.indexes, opts, after, resumed)
				var last rowView // no copy is made but of the last one
				for range countChunk {
					row, found, err := rows.nextRow()
					if err != nil {
						return err
					}
					if more = found; !found || n == most {
						return nil
					}
					last = row
					n++
				}
				after, resumed = last.position(), true
				return nil
			}
			rows := newKeyRows(b.objects.Cursor(), opts, after, resumed)
			for range countChunk {
				at, found, err := rows.next()
				if err != nil {
					return err
				}
				if more = found; !found || n == most {
					return nil
				}
				after, resumed = at, true
				n++
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}
