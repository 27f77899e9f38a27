package store

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
)

// blob is an object that takes a page or more.
type blob struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	Spec            json.RawMessage `json:"spec,omitempty"`
}

// TestManyFreePages: once much was deleted the list of free pages is no longer
// part of every commit; a crash in that state costs nothing but a scan, and
// Close writes the list.
func TestManyFreePages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skiff.db")
	cfg := Config{Path: path, LogRevisions: 1, Kinds: []Kind{{Name: "blobs", New: func() core.Object { return &blob{} }}}}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.freelistLimit = 50
	name := func(i int) string { return fmt.Sprintf("blob-%04d", i) }
	const count = 200
	for i := range count {
		b := &blob{ObjectMeta: core.ObjectMeta{Name: name(i)}, Spec: json.RawMessage(`"` + strings.Repeat("x", 5000) + `"`)}
		if _, err := s.Commit(t.Context(), Op{Verb: Create, Kind: "blobs", Object: b}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range count - 1 {
		if _, err := s.Commit(t.Context(), Op{Verb: Delete, Key: Key{Kind: "blobs", Name: name(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	// What a crash would leave now.
	crashed := filepath.Join(t.TempDir(), "crashed.db")
	if err := copyFile(t.Context(), path, crashed); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !s.freelistSkipped {
		t.Fatal("the list of free pages was written all the time: the test proves nothing")
	}
	for _, file := range []string{path, crashed} {
		if err := Check(t.Context(), file, true); err != nil {
			t.Error(err)
		}
		cfg.Path = file
		again, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Get(t.Context(), Key{Kind: "blobs", Name: name(count - 1)}); err != nil {
			t.Error(err)
		}
		if free := again.db.Stats().FreePageN; file == crashed && free == 0 {
			t.Error("no free pages were found again")
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}
