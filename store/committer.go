package store

import (
	"errors"
	"fmt"
	"syscall"

	bolt "go.etcd.io/bbolt"
)

const (
	// maxGroup bounds the requests of one bbolt transaction: beyond a few
	// hundred the sync is no longer what costs, and the first waits for the last.
	maxGroup = 512
	// maxGroupBytes bounds what one bbolt transaction holds in memory.
	maxGroupBytes = 16 << 20
	// recentCapacity is how many changed keys the committer remembers. A
	// request that was prepared longer ago than that is sent back.
	recentCapacity = 16384
	// freelistCheck is how many groups are written between two looks at the
	// number of free pages.
	freelistCheck = 64
	// freelistLimit is up to how many free pages every commit writes the list of
	// them. After much was deleted that list would cost more than the commit:
	// then it is written at Close alone, and a start after a crash scans the
	// file for it instead (about 1 s for 1 GB in the page cache).
	freelistLimit = 16384
	// appendFill is the part of a page that is filled before it splits, in
	// buckets whose keys only grow: half-full pages would never fill up.
	appendFill = 0.9
	// objectFill is for objects, whose names mostly grow with time too (a run's
	// tasks, UUIDs of version 7), but which grow a little in later updates. It
	// saves a third of the file beside bbolt's 0.5.
	objectFill = 0.8
)

// recent remembers the revisions of the keys changed last, so that the
// committer sees without reading whether a prepared change is still right.
type recent struct {
	latest map[string]recentChange
	order  []recentKey // a ring
	next   int
	// horizon: every change after it is in latest.
	horizon uint64
}

type recentChange struct {
	// changed is when the key was written last.
	changed uint64
	// current is the revision of its record: changed, or 0 where it was removed.
	current uint64
}

type recentKey struct {
	rawKey  string
	changed uint64
}

func newRecent(capacity int) *recent {
	return &recent{latest: make(map[string]recentChange), order: make([]recentKey, 0, capacity)}
}

func (r *recent) add(rawKey string, changed, current uint64) {
	entry := recentKey{rawKey: rawKey, changed: changed}
	if len(r.order) < cap(r.order) {
		r.order = append(r.order, entry)
	} else {
		old := r.order[r.next]
		r.order[r.next] = entry
		r.next = (r.next + 1) % len(r.order)
		if r.latest[old.rawKey].changed == old.changed {
			delete(r.latest, old.rawKey)
		}
		r.horizon = max(r.horizon, old.changed)
	}
	r.latest[rawKey] = recentChange{changed: changed, current: current}
}

// overlay is what the requests before in one group changed.
type overlay map[string]uint64

// commitLoop is the one writer. It ends when the queue is closed and empty.
func (s *Store) commitLoop() {
	groups := 0
	for {
		group := s.queue.take()
		if len(group) == 0 {
			return
		}
		s.commitGroup(group)
		if groups++; groups%freelistCheck == 0 {
			s.tuneFreelist()
		}
	}
}

// tuneFreelist decides whether commits write the list of free pages. It is the
// committer's: bbolt reads the setting in the middle of a commit.
func (s *Store) tuneFreelist() {
	stats := s.db.Stats()
	free := stats.FreePageN + stats.PendingPageN
	switch {
	case free > s.freelistLimit:
		s.db.NoFreelistSync, s.freelistSkipped = true, true
	case free < s.freelistLimit/2:
		s.db.NoFreelistSync = false
	}
}

// commitGroup writes a group in one bbolt transaction and answers each request.
func (s *Store) commitGroup(group []*request) {
	err := s.health.writable()
	var next state
	var events []*entry
	if err == nil {
		next, events, err = s.writeGroup(group)
	}
	if err != nil {
		s.health.writeFailed(err)
		err = classify(err)
	} else if len(events) > 0 {
		s.state = next
		for _, e := range events {
			s.recent.add(e.rawKey, e.revision, e.current)
		}
		s.durable.set(next.revision)
		s.hub.append(events, next)
		s.health.wrote()
	}
	for _, r := range group {
		if err != nil {
			r.err = err
		}
		close(r.done)
	}
}

// writeGroup returns the state after the group and what it changed, none where
// no request had anything to write.
func (s *Store) writeGroup(group []*request) (next state, events []*entry, err error) {
	errNothing := errors.New("nothing to write")
	err = guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			b, err := bucketsOf(tx)
			if err != nil {
				return err
			}
			b.log.FillPercent, b.objects.FillPercent = appendFill, objectFill
			next, events = s.state, events[:0]
			changed := make(overlay)
			for _, r := range group {
				rows, err := s.apply(b, r, changed, &next)
				if err != nil {
					return err
				}
				events = append(events, rows...)
			}
			if len(events) == 0 {
				return errNothing
			}
			if err := trimLog(b.log, &next, s.cfg, len(events)); err != nil {
				return err
			}
			if err := b.meta.Put([]byte(metaState), next.encode()); err != nil {
				return err
			}
			if s.cfg.BeforeSync != nil {
				s.cfg.BeforeSync()
			}
			return nil
		})
	})
	if errors.Is(err, errNothing) {
		return s.state, nil, nil
	}
	return next, events, err
}

// apply validates one request as a whole and then writes it. A request that is
// not valid gets its own error; the error returned is the group's.
func (s *Store) apply(b buckets, r *request, changed overlay, next *state) ([]*entry, error) {
	if r.changes == nil {
		if r.changes, r.err = s.prepare(b.record, r.ops); r.err != nil {
			if errors.Is(r.err, ErrCorrupt) {
				s.health.damaged(r.err)
			}
			return nil, nil
		}
	} else if r.err = s.stillTrue(r, changed); r.err != nil {
		return nil, nil
	}
	writes := 0
	for i := range r.changes {
		if r.changes[i].event != "" {
			writes++
		}
	}
	if writes == 0 {
		r.revision = next.revision
		return nil, nil
	}
	next.revision++
	r.revision = next.revision
	events := make([]*entry, 0, writes)
	for i := range r.changes {
		c := &r.changes[i]
		if c.event == "" {
			continue
		}
		e, err := b.write(c, next, uint32(i))
		if err != nil {
			return nil, err
		}
		changed[c.rawKey] = e.current
		events = append(events, e)
	}
	return events, nil
}

// stillTrue reports errStale where a key has another revision than the request
// was prepared from.
func (s *Store) stillTrue(r *request, changed overlay) error {
	for i := range r.changes {
		c := &r.changes[i]
		now, known := changed[c.rawKey]
		if !known {
			var latest recentChange
			latest, known = s.recent.latest[c.rawKey]
			now = latest.current
		}
		if known && now != c.base || !known && r.readAt < s.recent.horizon {
			return errStale
		}
	}
	return nil
}

// write applies one change to the buckets and returns its event.
func (b buckets) write(c *prepared, next *state, sequence uint32) (*entry, error) {
	e := &entry{
		event: c.event, revision: next.revision, current: next.revision,
		key: c.key, rawKey: c.rawKey, kind: c.kind, json: c.json,
	}
	var err error
	if c.value == nil {
		e.current = 0
		err = b.objects.Delete([]byte(c.rawKey))
	} else {
		sealRecord(c.value, c.rawKey, next.revision)
		err = b.objects.Put([]byte(c.rawKey), c.value)
	}
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", c.key, err)
	}
	for _, row := range c.drop {
		if err := b.indexes.Delete(row); err != nil {
			return nil, fmt.Errorf("write an index of %s: %w", c.key, err)
		}
	}
	for _, row := range c.add {
		if err := b.indexes.Put(row, nil); err != nil {
			return nil, fmt.Errorf("write an index of %s: %w", c.key, err)
		}
	}
	row := logKey(next.revision, sequence)
	logged := newChange(row, c.event, c.rawKey, c.json)
	if err := b.log.Put(row, logged); err != nil {
		return nil, fmt.Errorf("log %s: %w", c.key, err)
	}
	next.logBytes += int64(len(row) + len(logged))
	c.base = next.revision
	return e, nil
}

// record is a getter.
func (b buckets) record(rawKey string) (record, bool, error) {
	value := b.objects.Get([]byte(rawKey))
	if value == nil {
		return record{}, false, nil
	}
	rec, err := parseRecord(rawKey, value)
	return rec, err == nil, err
}

// classify gives a failed disk write its class.
func classify(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: nothing was written; make room on the disk and try again: %w", ErrFull, err)
	}
	return err
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, ErrFull)
}
