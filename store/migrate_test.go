package store_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

// fixtureV0 was written by schema version 0: bare JSON values that hold their
// resourceVersion, no indexes, no change log, no checksums.
const fixtureV0 = "testdata/schema-0.db"

// fixture copies the committed file, so that the test meets what an older skiff
// really left and not what this code would write today.
func fixture(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "skiff.db")
	in, err := os.Open(fixtureV0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, in.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMigrateFromVersion0(t *testing.T) {
	path := fixture(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := storetest.OpenConfig(t, config(t, path))
	if s.ID() != "11111111-2222-3333-4444-555555555555" || s.Revision() != 8 {
		t.Errorf("id %s, revision %d", s.ID(), s.Revision())
	}
	thing, err := store.GetAs[*storetest.Thing](t.Context(), s, storetest.ThingKey("default", "old-3"))
	if err != nil {
		t.Fatal(err)
	}
	if thing.UID != "uid-3" || thing.ResourceVersion != "6" || thing.Generation != 2 || thing.Labels["a"] != "b" || thing.CreationTimestamp.Year() != 2025 {
		t.Errorf("migrated: %+v", thing.ObjectMeta)
	}
	// An update without a change is still none, so the JSON is what it was.
	if revision, err := s.Commit(t.Context(), store.Op{Verb: store.Update, Kind: storetest.Things, Object: thing}); err != nil || revision != 8 {
		t.Errorf("an update without a change gave revision %d, %v", revision, err)
	}
	things, _, err := store.ListAs[*storetest.Thing](t.Context(), s, store.ListOptions{Kind: storetest.Things, Index: storetest.ByTag, Prefix: "t1", Exact: true})
	var names []string
	for _, one := range things {
		names = append(names, one.Name)
	}
	if diff := cmp.Diff([]string{"old-1", "old-3"}, names); err != nil || diff != "" {
		t.Errorf("by index: %v (-want +got)\n%s", err, diff)
	}
	if err := s.CheckNow(t.Context()); err != nil {
		t.Error(err)
	}
	copies, err := filepath.Glob(path + ".schema-0.*")
	if err != nil || len(copies) != 1 {
		t.Fatalf("copies of the file as it was: %v, %v", copies, err)
	}
	// The copy is what an older skiff can be pointed at; bbolt writes its metas
	// anew.
	after, err := os.ReadFile(copies[0])
	if err != nil || len(after) > len(before) || string(after[2*4096:]) != string(before[2*4096:len(after)]) {
		t.Errorf("the copy is not the file as it was: %d bytes of %d, %v", len(after), len(before), err)
	}
}

// TestMigrationFails: one that cannot go through leaves the file as it was.
func TestMigrationFails(t *testing.T) {
	path := fixture(t)
	if err := editFile(path, func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("objects")).Put([]byte("things.test\x00default\x00zz"), []byte("not JSON"))
	}); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), store.Config{Path: path, Kinds: []store.Kind{storetest.ThingKind()}})
	if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "default/zz") {
		t.Errorf("open: %v; want ErrCorrupt that names the object", err)
	}
	if err := editFile(path, func(tx *bolt.Tx) error {
		if got := string(tx.Bucket([]byte("meta")).Get([]byte("schema"))); got != "0" {
			t.Errorf("the schema is %q", got)
		}
		if got := tx.Bucket([]byte("objects")).Get([]byte("things.test\x00default\x00old-0")); len(got) == 0 || got[0] != '{' {
			t.Errorf("the migration went half through: %q", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestNewerSchema(t *testing.T) {
	path := filled(t, 1)
	if err := editFile(path, func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("9"))
	}); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{nil, checkCommand(t)} {
		_, err := store.Open(t.Context(), store.Config{Path: path, Kinds: []store.Kind{storetest.ThingKind()}, CheckCommand: command})
		if !errors.Is(err, store.ErrNewer) || !strings.Contains(err.Error(), "9") || !strings.Contains(err.Error(), fmt.Sprint(store.SchemaVersion)) {
			t.Errorf("open: %v; want ErrNewer and both versions", err)
		}
	}
}

// TestIndexesAreRebuilt: a changed declaration is built before the store opens.
func TestIndexesAreRebuilt(t *testing.T) {
	path := filled(t, 12000) // more than a chunk
	kind := storetest.ThingKind()
	kind.Indexes[1].Version = 1
	kind.Indexes = append(kind.Indexes[1:], store.Index{Name: "length", Values: func(obj core.Object) []string {
		return []string{fmt.Sprint(len(obj.Metadata().Name))}
	}})
	s := storetest.OpenConfig(t, store.Config{Path: path, Kinds: []store.Kind{kind}})
	count := 0
	for opts := (store.ListOptions{Kind: storetest.Things, Index: "length", Prefix: "11", Exact: true}); ; {
		page, err := s.List(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		count += len(page.Items)
		if opts.Continue = page.Continue; opts.Continue == "" {
			break
		}
	}
	if count != 12000 {
		t.Errorf("the new index finds %d of 12000", count)
	}
	if err := s.CheckNow(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.List(t.Context(), store.ListOptions{Kind: storetest.Things, Index: storetest.ByState}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("list by an index that is no longer declared: %v", err)
	}
}
