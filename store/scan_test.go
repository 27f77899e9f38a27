package store_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

// scanned goes through an index by pages of opts.Limit rows.
func scanned(t *testing.T, s store.Interface, opts store.ListOptions) []string {
	t.Helper()
	all := []string{}
	for {
		page := 0
		next, err := s.Scan(t.Context(), opts, func(e store.Entry) bool {
			all = append(all, e.Namespace+"/"+string(e.Name))
			page++
			return page != opts.Limit
		})
		if err != nil {
			t.Fatal(err)
		}
		if opts.Continue = next; next == "" {
			return all
		}
	}
}

func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// TestBounds: From and Until cut out what comparing the values would, in
// either direction, page by page, in lists, scans and counts alike.
func TestBounds(t *testing.T) {
	values := []string{"", "a", "a\x00", "a\x00b", "a\x00\x01", "a\x01", "a\xff", "ab", "b", "￿"}
	rapid.Check(t, func(rt *rapid.T) {
		s := storetest.Open(t, storetest.ThingKind())
		tags := map[string][]string{}
		for i := range rapid.IntRange(0, 20).Draw(rt, "things") {
			thing := &storetest.Thing{ObjectMeta: core.ObjectMeta{
				Name: fmt.Sprintf("t%d", i), Namespace: rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "namespace")}}
			thing.Spec.Tags = []string{rapid.SampledFrom(values).Draw(rt, "tag")}
			tags[thing.Namespace+"/"+thing.Name] = thing.Spec.Tags
			if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: storetest.Things, Object: thing}); err != nil {
				rt.Fatal(err)
			}
		}
		all := store.ListOptions{Kind: storetest.Things, Index: storetest.ByTag, Namespace: rapid.SampledFrom([]string{"", "x"}).Draw(rt, "in")}
		opts := all
		opts.From = rapid.SampledFrom(values).Draw(rt, "from")
		opts.Until = rapid.SampledFrom(values).Draw(rt, "until")
		opts.Reverse = rapid.Bool().Draw(rt, "reverse")
		opts.Limit = rapid.IntRange(1, 4).Draw(rt, "limit")
		all.Reverse = opts.Reverse
		want := slices.DeleteFunc(names(t, s, all), func(name string) bool {
			tag := tags[name][0]
			return tag < opts.From || (opts.Until != "" && tag >= opts.Until)
		})
		if diff := cmp.Diff(want, names(t, s, opts)); diff != "" {
			rt.Fatalf("list from %q until %q:\n%s", opts.From, opts.Until, diff)
		}
		if diff := cmp.Diff(want, scanned(t, s, opts)); diff != "" {
			rt.Fatalf("scan from %q until %q:\n%s", opts.From, opts.Until, diff)
		}
		if n, err := s.Count(t.Context(), opts, 1000); err != nil || n != len(want) {
			rt.Fatalf("count: %d, %v", n, err)
		}
	})
}

// TestScanRows: a scan sees the index's values as they were declared, stops
// when it is told to and goes on where it stopped, over the bounds of its
// transactions, and its token is good for no other list.
func TestScanRows(t *testing.T) {
	s := storetest.Open(t, storetest.ThingKind())
	const count = 45_000 // more than two transactions' rows
	var ops []store.Op
	for i := range count {
		thing := &storetest.Thing{ObjectMeta: core.ObjectMeta{Name: fmt.Sprintf("t%06d", i), Namespace: "x"}}
		thing.Spec.Tags = []string{fmt.Sprintf("v\x00%06d\x00", i)}
		if ops = append(ops, store.Op{Verb: store.Create, Kind: storetest.Things, Object: thing}); len(ops) == 1000 {
			if _, err := s.Commit(t.Context(), ops...); err != nil {
				t.Fatal(err)
			}
			ops = nil
		}
	}
	opts := store.ListOptions{Kind: storetest.Things, Index: storetest.ByTag, Prefix: "v\x00"}
	for _, stop := range []int{1, 20_000, 20_001, 40_000, count - 1, count} {
		opts.Continue = ""
		seen := 0
		visit := func(e store.Entry) bool {
			if want := fmt.Sprintf("v\x00%06d\x00", seen); string(e.Value) != want || string(e.Name) != fmt.Sprintf("t%06d", seen) {
				t.Fatalf("row %d is %q of %s", seen, e.Value, e.Name)
			}
			seen++
			return seen != stop
		}
		next, err := s.Scan(t.Context(), opts, visit)
		if err != nil || seen != stop || (next == "") != (stop == count) {
			t.Fatalf("to %d: saw %d, token %q, %v", stop, seen, next, err)
		}
		if opts.Continue = next; next == "" {
			continue
		}
		if next, err = s.Scan(t.Context(), opts, visit); err != nil || seen != count || next != "" {
			t.Fatalf("from %d on: saw %d, token %q, %v", stop, seen, next, err)
		}
		opts.Until = "w"
		if _, err = s.Scan(t.Context(), opts, visit); !errors.Is(err, store.ErrInvalid) {
			t.Fatalf("a token of another list: %v", err)
		}
		opts.Until = ""
	}
	if _, err := s.Scan(t.Context(), store.ListOptions{Kind: storetest.Things}, nil); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("without an index: %v", err)
	}
}
