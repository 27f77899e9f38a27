package store

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
)

// getter finds an object's record in some transaction.
type getter func(rawKey string) (rec record, found bool, err error)

// prepared is one op, checked against what was there and encoded.
type prepared struct {
	key    Key
	rawKey string
	kind   *kindInfo
	// base is the revision of the record that was there; 0 for none. The
	// committer applies the op only while it still is.
	base uint64
	// event is what will be told to watchers; empty where nothing changes.
	event EventType
	// value is the new record without revision and CRC; nil removes.
	value []byte
	// json is the object as events carry it: the new state, or the last one.
	json []byte
	// plain is json before it was sealed; nil where the op removes.
	plain []byte
	// drop and add are index rows.
	drop, add [][]byte
	// object, where not nil, receives the revision.
	object core.Object
}

// savedMeta is the metadata of the objects of a request, to be put back where
// it fails: a caller's object is filled in only by a commit that happened.
type savedMeta []struct {
	object core.Object
	typ    core.TypeMeta
	meta   core.ObjectMeta
}

func saveMeta(ops []Op) savedMeta {
	saved := make(savedMeta, 0, len(ops))
	for _, op := range ops {
		if op.Object != nil {
			saved = append(saved, struct {
				object core.Object
				typ    core.TypeMeta
				meta   core.ObjectMeta
			}{op.Object, *op.Object.Type(), *op.Object.Metadata()})
		}
	}
	return saved
}

func (s savedMeta) restore() {
	for _, one := range s {
		*one.object.Type(), *one.object.Metadata() = one.typ, one.meta
	}
}

// oldMeta is what replacing an object needs of the one that was there.
type oldMeta struct {
	UID               string     `json:"uid"`
	Generation        int64      `json:"generation"`
	CreationTimestamp time.Time  `json:"creationTimestamp"`
	DeletionTimestamp *time.Time `json:"deletionTimestamp"`
	Finalizers        []string   `json:"finalizers"`
}

func (r record) meta(key Key) (oldMeta, error) {
	var m oldMeta
	raw, _ := topLevel(r.json)
	if raw == nil {
		return m, corrupt(key.raw(), "the object has no metadata")
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, corrupt(key.raw(), "%v", err)
	}
	return m, nil
}

// prepare checks and encodes a request's ops against what get finds. The result
// aliases nothing of the transaction.
func (s *Store) prepare(get getter, ops []Op) ([]prepared, error) {
	out := make([]prepared, 0, len(ops))
	var seen map[string]struct{}
	if len(ops) > fewOps {
		seen = make(map[string]struct{}, len(ops))
	}
	for i := range ops {
		p, err := s.prepareOp(get, &ops[i])
		if err != nil {
			return nil, err
		}
		if twice(out, seen, p.rawKey) {
			return nil, fmt.Errorf("commit: two ops on %s in one transaction: %w", p.key, ErrInvalid)
		}
		out = append(out, p)
	}
	return out, nil
}

// fewOps are sooner looked through than kept in a map.
const fewOps = 32

// twice reports whether a key was seen before, and notes it.
func twice(before []prepared, seen map[string]struct{}, rawKey string) bool {
	if seen != nil {
		_, known := seen[rawKey]
		seen[rawKey] = struct{}{}
		return known
	}
	for i := range before {
		if before[i].rawKey == rawKey {
			return true
		}
	}
	return false
}

func (s *Store) prepareOp(get getter, op *Op) (prepared, error) {
	key := op.Key
	if op.Verb != Delete {
		if op.Object == nil {
			return prepared{}, fmt.Errorf("commit: op without an object: %w", ErrInvalid)
		}
		meta := op.Object.Metadata()
		if meta.Name == "" && meta.GenerateName != "" && op.Verb == Create {
			meta.Name = meta.GenerateName + strings.ToLower(rand.Text()[:8])
		}
		key = Key{Kind: op.Kind, Namespace: meta.Namespace, Name: meta.Name}
	}
	kind, err := s.kind(key.Kind)
	if err != nil {
		return prepared{}, fmt.Errorf("commit %s: %w", key, err)
	}
	if err := key.validate(); err != nil {
		return prepared{}, fmt.Errorf("commit: %w", err)
	}
	p := prepared{key: key, rawKey: key.raw(), kind: kind, object: op.Object}
	old, found, err := get(p.rawKey)
	if err != nil {
		return prepared{}, err
	}
	if found {
		p.base = old.revision
	}
	switch op.Verb {
	case Create:
		if found {
			return prepared{}, fmt.Errorf("create %s: %w", key, ErrExists)
		}
		err = s.prepareNew(&p)
	case Update:
		if !found {
			return prepared{}, fmt.Errorf("update %s: %w", key, ErrNotFound)
		}
		if err = matchRevision("update", key, old, op.Object.Metadata().ResourceVersion); err == nil {
			err = s.prepareReplace(&p, old, true)
		}
	case Put:
		if found {
			err = s.prepareReplace(&p, old, false)
		} else {
			err = s.prepareNew(&p)
		}
	case Delete:
		p.object = nil
		if !found {
			return prepared{}, fmt.Errorf("delete %s: %w", key, ErrNotFound)
		}
		if err = matchRevision("delete", key, old, op.ResourceVersion); err == nil {
			err = s.prepareDelete(&p, old)
		}
	default:
		err = fmt.Errorf("commit %s: unknown verb %d: %w", key, op.Verb, ErrInvalid)
	}
	return p, err
}

// matchRevision compares what the caller read with what is there.
func matchRevision(verb string, key Key, old record, version string) error {
	if version == "" || version == formatRevision(old.revision) {
		return nil
	}
	return fmt.Errorf("%s %s: it is at revision %d, not %s: %w", verb, key, old.revision, version, ErrConflict)
}

// now is the time that goes into objects: UTC, to the microsecond, so that it
// reads the same after a round trip through JSON.
func (s *Store) now() time.Time { return s.cfg.Now().UTC().Truncate(time.Microsecond) }

func (s *Store) prepareNew(p *prepared) error {
	meta := p.object.Metadata()
	if meta.UID == "" {
		id, err := uuid.NewRandom()
		if err != nil {
			return fmt.Errorf("create %s: %w", p.key, err)
		}
		meta.UID = id.String()
	}
	if meta.CreationTimestamp.IsZero() {
		meta.CreationTimestamp = s.now()
	}
	meta.DeletionTimestamp = nil
	meta.Generation = 1
	p.event = Added
	return p.encode(nil)
}

// prepareReplace writes p.object over old. checkUID refuses one that was read
// before the name was used anew.
func (s *Store) prepareReplace(p *prepared, old record, checkUID bool) error {
	was, err := old.meta(p.key)
	if err != nil {
		return err
	}
	meta := p.object.Metadata()
	if checkUID && meta.UID != "" && meta.UID != was.UID {
		return fmt.Errorf("update %s: it was deleted and made anew: %w", p.key, ErrConflict)
	}
	meta.UID, meta.CreationTimestamp = was.UID, was.CreationTimestamp
	meta.DeletionTimestamp, meta.Generation = was.DeletionTimestamp, was.Generation
	if was.DeletionTimestamp != nil && len(meta.Finalizers) == 0 {
		return p.encodeRemoval(old)
	}
	p.event = Modified
	if err := p.encode(&old); err != nil {
		return err
	}
	before, err := p.kind.fromFile(p.key, old.json)
	if err != nil {
		return err
	}
	switch {
	case bytes.Equal(p.plain, before):
		*p = prepared{key: p.key, rawKey: p.rawKey, kind: p.kind, base: p.base, object: p.object}
		return nil
	case sameSpec(p.plain, before):
		return nil
	default:
		meta.Generation++
		return p.encode(&old)
	}
}

// prepareDelete removes the object, or marks it where finalizers hold it.
func (s *Store) prepareDelete(p *prepared, old record) error {
	was, err := old.meta(p.key)
	if err != nil {
		return err
	}
	if len(was.Finalizers) == 0 {
		p.event = Deleted
		p.json = bytes.Clone(old.json)
		p.drop, err = oldRows(p.key, old)
		return err
	}
	if was.DeletionTimestamp != nil {
		return nil
	}
	marked, err := p.kind.decode(p.key, old.revision, old.json)
	if err != nil {
		return err
	}
	now := s.now()
	marked.Metadata().DeletionTimestamp = &now
	p.event = Modified
	p.object = marked
	defer func() { p.object = nil }()
	return p.encode(&old)
}

// encodeRemoval is an update that lifts the last finalizer of a deleted object.
func (p *prepared) encodeRemoval(old record) error {
	data, err := p.marshal()
	if err != nil {
		return err
	}
	if data, err = p.kind.toFile(p.key, data); err != nil {
		return err
	}
	p.event, p.json = Deleted, data
	p.drop, err = oldRows(p.key, old)
	return err
}

// marshal is the object's JSON without its revision.
func (p *prepared) marshal() ([]byte, error) {
	if t := p.object.Type(); t.Kind == "" && t.APIVersion == "" {
		t.Kind, t.APIVersion = p.kind.kind, p.kind.apiVersion
	}
	meta := p.object.Metadata()
	version := meta.ResourceVersion
	meta.ResourceVersion = ""
	data, err := json.Marshal(p.object)
	meta.ResourceVersion = version
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w: %w", p.key, ErrInvalid, err)
	}
	if len(data) > MaxObjectBytes {
		return nil, fmt.Errorf("encode %s: %d bytes are more than the %d an object may take: %w", p.key, len(data), MaxObjectBytes, ErrInvalid)
	}
	return data, nil
}

// encode makes value, json and the index rows, of which those that old has too
// are left alone.
func (p *prepared) encode(old *record) error {
	data, err := p.marshal()
	if err != nil {
		return err
	}
	entries, err := p.kind.entries(p.key, p.object)
	if err != nil {
		return err
	}
	plain := data
	if data, err = p.kind.toFile(p.key, plain); err != nil {
		return err
	}
	p.value = newRecord(entries, data)
	p.json = p.value[len(p.value)-len(data):]
	// One of the two copies is kept where they are the same.
	if p.plain = p.json; p.kind.Sealed {
		p.plain = plain
	}
	var had []indexEntry
	if old != nil {
		if had, err = old.entries(p.rawKey); err != nil {
			return err
		}
	}
	p.drop = rowsWithout(p.key, had, entries)
	p.add = rowsWithout(p.key, entries, had)
	return nil
}

// entries are the object's entries in the kind's indexes, without duplicates,
// in a fixed order.
func (k *kindInfo) entries(key Key, obj core.Object) ([]indexEntry, error) {
	var out []indexEntry
	for i := range k.Indexes {
		index := &k.Indexes[i]
		values := index.Values(obj)
		if len(values) > 1 {
			values = append([]string(nil), values...)
			sort.Strings(values)
		}
		for j, v := range values {
			if j > 0 && v == values[j-1] {
				continue
			}
			if len(v) > maxIndexValue {
				return nil, fmt.Errorf("index %s of %s: a value of %d bytes is longer than %d: %w", index.Name, key, len(v), maxIndexValue, ErrInvalid)
			}
			out = append(out, indexEntry{name: index.Name, value: v})
		}
	}
	return out, nil
}

// rowsWithout are the rows of those of list that other lacks.
func rowsWithout(key Key, list, other []indexEntry) [][]byte {
	var rows [][]byte
next:
	for _, e := range list {
		for _, o := range other {
			if e == o {
				continue next
			}
		}
		rows = append(rows, indexRow(key, e.name, e.value))
	}
	return rows
}

func oldRows(key Key, old record) ([][]byte, error) {
	had, err := old.entries(key.raw())
	return rowsWithout(key, had, nil), err
}
