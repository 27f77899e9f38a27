package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestUnpack(t *testing.T) {
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "deep", "bin")
	paths := make([]string, 8)
	var all sync.WaitGroup
	for i := range paths {
		all.Go(func() {
			var err error
			if paths[i], err = Unpack(Config{Dir: dir, Path: source}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, path := range paths {
		if path != paths[0] || filepath.Base(path) != "launcher-a8076d3d28d2" {
			t.Errorf("unpacked as %s and %s", paths[0], path)
		}
	}
	info, err := os.Stat(paths[0])
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("it is %v, %v", info, err)
	}
	// One that was damaged is replaced.
	if err := os.WriteFile(paths[0], []byte("damaged"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(Config{Dir: dir, Path: source}); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(paths[0]); string(data) != "#!/bin/sh\n" {
		t.Errorf("it holds %q", data)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestEmbedded holds whichever of the two builds this is.
func TestEmbedded(t *testing.T) {
	path, err := Unpack(Config{Dir: t.TempDir()})
	if errors.Is(err, ErrNoLauncher) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || len(data) < 1<<20 || string(data[:4]) != "\x7fELF" {
		t.Errorf("the embedded launcher has %d bytes, %v", len(data), err)
	}
}
