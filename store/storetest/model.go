package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sort"
	"strconv"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// Model is the store as it should be: a map, in a hundred lines that can be
// read. It covers Things, keeps every event, and is not safe for concurrent use.
type Model struct {
	Revision uint64
	Objects  map[store.Key]*Thing
	Events   []ModelEvent
}

// ModelEvent is one change, the object as it then was.
type ModelEvent struct {
	Type     store.EventType
	Revision uint64
	Thing    *Thing
}

// NewModel is an empty store at the given revision.
func NewModel(revision uint64) *Model {
	return &Model{Revision: revision, Objects: make(map[store.Key]*Thing)}
}

// Commit does what the store's does, but for what it makes up itself: uids and
// times, which Settle takes over. Its error is one of the store's classes.
func (m *Model) Commit(ops ...store.Op) (uint64, error) {
	next := &Model{Revision: m.Revision + 1, Objects: maps.Clone(m.Objects)}
	seen := make(map[store.Key]bool)
	for _, op := range ops {
		if err := next.apply(op, m.Objects, seen); err != nil {
			return 0, err
		}
	}
	if len(next.Events) == 0 {
		return m.Revision, nil
	}
	m.Revision, m.Objects = next.Revision, next.Objects
	m.Events = append(m.Events, next.Events...)
	return m.Revision, nil
}

// apply does one op; its conditions are on what was there before the transaction.
func (m *Model) apply(op store.Op, before map[store.Key]*Thing, seen map[store.Key]bool) error {
	key, version := op.Key, op.ResourceVersion
	var thing *Thing
	if op.Verb != store.Delete {
		typed, ok := op.Object.(*Thing)
		if !ok {
			return store.ErrInvalid
		}
		thing = Clone(typed)
		key, version = ThingKey(thing.Namespace, thing.Name), thing.ResourceVersion
	}
	old := before[key]
	if err := precondition(op.Verb, old, version); err != nil {
		return err
	}
	if seen[key] {
		return store.ErrInvalid
	}
	seen[key] = true
	switch {
	case op.Verb == store.Delete && len(old.Finalizers) == 0:
		m.remove(key, Clone(old))
	case op.Verb == store.Delete && old.DeletionTimestamp == nil:
		marked := Clone(old)
		marked.DeletionTimestamp = &marked.CreationTimestamp // some time; see Settle
		m.set(key, store.Modified, marked)
	case op.Verb == store.Delete:
	case old == nil:
		thing.Generation = 1
		m.set(key, store.Added, thing)
	default:
		m.replace(key, old, thing)
	}
	return nil
}

func precondition(verb store.Verb, old *Thing, version string) error {
	switch {
	case verb == store.Create && old != nil:
		return store.ErrExists
	case (verb == store.Update || verb == store.Delete) && old == nil:
		return store.ErrNotFound
	case (verb == store.Update || verb == store.Delete) && version != "" && version != old.ResourceVersion:
		return store.ErrConflict
	default:
		return nil
	}
}

func (m *Model) replace(key store.Key, old, thing *Thing) {
	thing.UID, thing.CreationTimestamp = old.UID, old.CreationTimestamp
	thing.DeletionTimestamp, thing.Generation = old.DeletionTimestamp, old.Generation
	thing.ResourceVersion = old.ResourceVersion
	thing.TypeMeta = old.TypeMeta
	switch {
	case old.DeletionTimestamp != nil && len(thing.Finalizers) == 0:
		m.remove(key, thing)
	case text(old) == text(thing):
	default:
		if text(old.Spec) != text(thing.Spec) {
			thing.Generation++
		}
		m.set(key, store.Modified, thing)
	}
}

func (m *Model) set(key store.Key, event store.EventType, thing *Thing) {
	thing.ResourceVersion = strconv.FormatUint(m.Revision, 10)
	m.Objects[key] = thing
	m.Events = append(m.Events, ModelEvent{Type: event, Revision: m.Revision, Thing: thing})
}

func (m *Model) remove(key store.Key, last *Thing) {
	last.ResourceVersion = strconv.FormatUint(m.Revision, 10)
	delete(m.Objects, key)
	m.Events = append(m.Events, ModelEvent{Type: store.Deleted, Revision: m.Revision, Thing: last})
}

// Settle takes over from a committed object what only the store can know.
func (m *Model) Settle(got *Thing) {
	key := ThingKey(got.Namespace, got.Name)
	thing := m.Objects[key]
	if thing == nil {
		return
	}
	thing.UID, thing.CreationTimestamp, thing.TypeMeta = got.UID, got.CreationTimestamp, got.TypeMeta
	if thing.DeletionTimestamp != nil && got.DeletionTimestamp != nil {
		thing.DeletionTimestamp = got.DeletionTimestamp
	}
}

// List is what List must return in all its pages.
func (m *Model) List(opts store.ListOptions) []*Thing {
	type row struct {
		value string
		thing *Thing
	}
	var rows []row
	for _, thing := range m.Objects {
		if opts.Namespace != "" && thing.Namespace != opts.Namespace || opts.Filter != nil && !opts.Filter(thing) {
			continue
		}
		for _, value := range values(thing, opts.Index) {
			if opts.Index == "" || value == opts.Prefix || !opts.Exact && len(value) > len(opts.Prefix) && value[:len(opts.Prefix)] == opts.Prefix {
				rows = append(rows, row{value, thing})
			}
		}
	}
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		if a.value != b.value {
			return a.value < b.value
		}
		if a.thing.Namespace != b.thing.Namespace {
			return a.thing.Namespace < b.thing.Namespace
		}
		return a.thing.Name < b.thing.Name
	})
	out := make([]*Thing, len(rows))
	for i, r := range rows {
		out[i] = r.thing
	}
	return out
}

// values are a thing's entries in an index; without one it has one entry.
func values(thing *Thing, index string) []string {
	if index == "" {
		return []string{""}
	}
	for _, declared := range ThingKind().Indexes {
		if declared.Name != index {
			continue
		}
		var out []string
		seen := make(map[string]bool)
		for _, v := range declared.Values(thing) {
			if !seen[v] {
				seen[v] = true
				out = append(out, v)
			}
		}
		return out
	}
	return nil
}

// Clone is a deep copy.
func Clone(thing *Thing) *Thing {
	out := new(Thing)
	if err := json.Unmarshal([]byte(text(thing)), out); err != nil {
		panic(fmt.Sprintf("clone a thing: %v", err))
	}
	return out
}

// text is a value's JSON.
func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode a thing: %v", err))
	}
	return string(data)
}

// SameClass reports whether two errors are of one of the store's classes, or
// both nil.
func SameClass(a, b error) bool {
	for _, class := range []error{store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrInvalid, store.ErrGone, store.ErrClosed, store.ErrFull, store.ErrCorrupt} {
		if errors.Is(a, class) != errors.Is(b, class) {
			return false
		}
	}
	return (a == nil) == (b == nil)
}

var _ core.Object = (*Thing)(nil)
