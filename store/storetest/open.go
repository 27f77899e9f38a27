// Package storetest is what tests of the store and of everything above it
// share: a store in a temporary folder, an object kind, and a model of the
// store in memory that says what it must do.
//
// It is imported by tests only, and imports store and api/core.
package storetest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// Open opens a new store with the given kinds in the test's temporary folder
// and closes it when the test ends.
func Open(tb testing.TB, kinds ...store.Kind) *store.Store {
	tb.Helper()
	return OpenConfig(tb, store.Config{Path: filepath.Join(tb.TempDir(), "skiff.db"), Kinds: kinds})
}

// OpenConfig opens a store and closes it when the test ends. A test may close it
// earlier.
func OpenConfig(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	// Not the test's context, which ends before the cleanup does.
	s, err := store.Open(context.Background(), cfg)
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close store: %v", err)
		}
	})
	return s
}

// Thing is an object with nothing to it, for tests of what holds for all.
type Thing struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	Spec            ThingSpec   `json:"spec"`
	Status          ThingStatus `json:"status,omitzero"`
}

// ThingSpec is what is wanted of a Thing.
type ThingSpec struct {
	Text string   `json:"text,omitempty"`
	Tags []string `json:"tags,omitempty"`
}

// ThingStatus is what was seen of a Thing.
type ThingStatus struct {
	State string `json:"state,omitempty"`
}

// Names of the kind and of its indexes.
const (
	Things  = "things.test"
	ByState = "state"
	ByTag   = "tag"
)

// ThingKind declares Thing with an index of one entry and one of many.
func ThingKind() store.Kind {
	return store.Kind{
		Name: Things,
		New: func() core.Object {
			return &Thing{TypeMeta: core.TypeMeta{APIVersion: "skiff.test/v1", Kind: "Thing"}}
		},
		Indexes: []store.Index{
			{Name: ByState, Values: func(obj core.Object) []string {
				if t, ok := obj.(*Thing); ok && t.Status.State != "" {
					return []string{t.Status.State}
				}
				return nil
			}},
			{Name: ByTag, Values: func(obj core.Object) []string {
				if t, ok := obj.(*Thing); ok {
					return t.Spec.Tags
				}
				return nil
			}},
		},
	}
}

// NewThing makes a Thing that is not stored yet.
func NewThing(namespace, name string) *Thing {
	return &Thing{ObjectMeta: core.ObjectMeta{Namespace: namespace, Name: name}}
}

// ThingKey names a Thing.
func ThingKey(namespace, name string) store.Key {
	return store.Key{Kind: Things, Namespace: namespace, Name: name}
}
