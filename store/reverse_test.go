package store_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

// TestReverse: a list from the end is the list from the start turned round,
// whatever the values, the namespaces and the size of pages, and both are as
// long as the count says.
func TestReverse(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := storetest.Open(t, storetest.ThingKind())
		tags := rapid.SampledFrom([]string{"", "a", "a\x00", "a\x00b", "aÿ", "ab", "b", "￿"})
		for i := range rapid.IntRange(0, 20).Draw(rt, "things") {
			thing := &storetest.Thing{ObjectMeta: core.ObjectMeta{
				Name: fmt.Sprintf("t%d", i), Namespace: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(rt, "namespace")}}
			thing.Spec.Tags = rapid.SliceOfNDistinct(tags, 0, 3, rapid.ID).Draw(rt, "tags")
			if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: storetest.Things, Object: thing}); err != nil {
				rt.Fatal(err)
			}
		}
		for _, prefix := range []string{"", "a", "a\x00", "￿"} {
			for _, namespace := range []string{"", "x"} {
				for _, exact := range []bool{false, true} {
					opts := store.ListOptions{Kind: storetest.Things, Namespace: namespace, Index: storetest.ByTag, Prefix: prefix, Exact: exact}
					forward := names(t, s, opts)
					opts.Reverse = true
					opts.Limit = rapid.IntRange(1, 4).Draw(rt, "limit")
					backward := names(t, s, opts)
					slices.Reverse(backward)
					if diff := cmp.Diff(forward, backward); diff != "" {
						rt.Fatalf("prefix %q exact %v namespace %q:\n%s", prefix, exact, namespace, diff)
					}
					if diff := cmp.Diff(backward, reversed(scanned(t, s, opts))); diff != "" {
						rt.Fatalf("scan of prefix %q exact %v namespace %q:\n%s", prefix, exact, namespace, diff)
					}
					for _, most := range []int{1, 3, 1000} {
						n, err := s.Count(t.Context(), opts, most)
						if err != nil || n != min(most, len(forward)) {
							rt.Fatalf("count up to %d: %d of %d, %v", most, n, len(forward), err)
						}
					}
				}
			}
		}
	})
}

func names(t *testing.T, s store.Interface, opts store.ListOptions) []string {
	t.Helper()
	all := []string{}
	for {
		page, err := s.List(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, obj := range page.Items {
			all = append(all, obj.Metadata().Namespace+"/"+obj.Metadata().Name)
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return all
		}
	}
}
