package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// TestSpares: each spare is given to one who asks, and none is lost by one who
// cannot place it; what an earlier daemon left is not given to anybody.
func TestSpares(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spares")
	if err := os.MkdirAll(filepath.Join(dir, "1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "1", "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan struct{}, 1000)
	s := host.NewSpares(dir, 3, func(path string) error {
		defer func() { made <- struct{}{} }()
		return os.Mkdir(path, 0o700)
	})
	if s.Take(func(string) error { return nil }) {
		t.Fatal("there is one before any was made")
	}
	for range 3 {
		<-made
	}
	s.Close() // the three are all there will be
	if s.Take(func(string) error { return errors.New("no room") }) {
		t.Error("one is gone that was not placed")
	}
	target := t.TempDir()
	var all sync.WaitGroup
	var mu sync.Mutex
	placed := 0
	for i := range 10 {
		all.Go(func() {
			to := filepath.Join(target, string(rune('a'+i)))
			if s.Take(func(path string) error { return os.Rename(path, to) }) {
				mu.Lock()
				placed++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	entries, err := os.ReadDir(target)
	if err != nil || placed != 3 || len(entries) != 3 {
		t.Errorf("%d were given, %d are there, %v", placed, len(entries), err)
	}
	for _, e := range entries {
		if left, err := os.ReadDir(filepath.Join(target, e.Name())); err != nil || len(left) > 0 {
			t.Errorf("%s holds %v, %v", e.Name(), left, err)
		}
	}
}

// TestSparesThatCannotBeMade: who asks is not held up, and the next time it is
// tried again.
func TestSparesThatCannotBeMade(t *testing.T) {
	tried := make(chan struct{}, 10)
	s := host.NewSpares(filepath.Join(t.TempDir(), "spares"), 3, func(string) error {
		tried <- struct{}{}
		return errors.New("the disk is full")
	})
	defer s.Close()
	for range 2 {
		for len(tried) == 0 {
			if s.Take(func(string) error { return nil }) {
				t.Fatal("one was given that was never made")
			}
		}
		<-tried
	}
}
