package store_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

func TestLifeOfAnObject(t *testing.T) {
	s := storetest.Open(t, storetest.ThingKind())
	ctx := t.Context()
	a := storetest.NewThing("default", "a")
	a.Spec.Tags = []string{"x", "y", "x"}
	first, err := s.Commit(ctx, store.Op{Verb: store.Create, Kind: storetest.Things, Object: a})
	if err != nil {
		t.Fatal(err)
	}
	if a.UID == "" || a.CreationTimestamp.IsZero() || a.Generation != 1 || a.Kind != "Thing" {
		t.Errorf("metadata was not filled in: %+v", a)
	}
	got, err := store.GetAs[*storetest.Thing](ctx, s, storetest.ThingKey("default", "a"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, got); diff != "" {
		t.Errorf("what was written differs from what is read (-written +read):\n%s", diff)
	}

	if _, err := s.Commit(ctx, store.Op{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("default", "a")}); !errors.Is(err, store.ErrExists) {
		t.Errorf("second create: %v, want ErrExists", err)
	}

	got.Status.State = "RUNNING"
	second, err := s.Commit(ctx, store.Op{Verb: store.Update, Kind: storetest.Things, Object: got})
	if err != nil || second != first+1 || got.Generation != 1 {
		t.Errorf("status update: revision %d after %d, generation %d, error %v", second, first, got.Generation, err)
	}
	again, err := s.Commit(ctx, store.Op{Verb: store.Update, Kind: storetest.Things, Object: got})
	if err != nil || again != second {
		t.Errorf("an update without a change gave revision %d after %d, error %v", again, second, err)
	}
	got.Spec.Text = "changed"
	if _, err := s.Commit(ctx, store.Op{Verb: store.Update, Kind: storetest.Things, Object: got}); err != nil || got.Generation != 2 {
		t.Errorf("spec update: generation %d, error %v", got.Generation, err)
	}
	a.Spec.Text = "late"
	before := *a
	if _, err := s.Commit(ctx, store.Op{Verb: store.Update, Kind: storetest.Things, Object: a}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("update of an old revision: %v, want ErrConflict", err)
	}
	if diff := cmp.Diff(&before, a); diff != "" {
		t.Errorf("a failed commit altered the caller's object:\n%s", diff)
	}
	things, _, err := store.ListAs[*storetest.Thing](ctx, s, store.ListOptions{Kind: storetest.Things, Index: storetest.ByState, Prefix: "RUNNING", Exact: true})
	if err != nil || len(things) != 1 || things[0].Name != "a" {
		t.Errorf("list by index: %v, %v", things, err)
	}
	if _, err := s.Commit(ctx, store.Op{Verb: store.Delete, Key: storetest.ThingKey("default", "a")}); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, storetest.ThingKey("default", "a")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get after delete: %v, want ErrNotFound", err)
	}
	if err := s.CheckNow(ctx); err != nil {
		t.Error(err)
	}
}
