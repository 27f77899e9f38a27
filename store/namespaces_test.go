package store_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

func TestNamespaces(t *testing.T) {
	other := storetest.ThingKind()
	other.Name = "things.testing" // the other's name is the beginning of this one's
	s := storetest.Open(t, storetest.ThingKind(), other)
	for _, key := range [][2]string{{"b", "1"}, {"a", "1"}, {"a", "2"}, {"a-b", "1"}, {"a0", "1"}, {"", "of none"}} {
		if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing(key[0], key[1])}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Namespaces(t.Context(), storetest.Things)
	if want := []string{"", "a", "a-b", "a0", "b"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if got, err := s.Namespaces(t.Context(), other.Name); err != nil || len(got) > 0 {
		t.Errorf("of a kind without objects: %q, %v", got, err)
	}
	if _, err := s.Namespaces(t.Context(), "none"); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("of no kind: %v", err)
	}
}
