package main

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2", "no value", "=bad"}, []string{"B=3", "C=x=y", "A="})
	if diff := cmp.Diff([]string{"B=3", "C=x=y", "A="}, got); diff != "" {
		t.Error(diff)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"run": 0o755, "data": 0o644} {
		if err := os.WriteFile(dir+"/"+name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/folder", 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=/nowhere:" + dir}
	for _, tt := range []struct {
		file, path string
		code       int
	}{
		{"run", dir + "/run", 0},
		{"data", "", codeNotExecutable},
		{"folder", "", codeNotFound},
		{"other", "", codeNotFound},
		{"", "", codeNotFound},
		{"./any", "./any", 0},
	} {
		path, code, err := lookPath(tt.file, env)
		if path != tt.path || code != tt.code || (err == nil) != (code == 0) {
			t.Errorf("%q: got %q, %d, %v", tt.file, path, code, err)
		}
	}
	if path, _, err := lookPath("sh", nil); err != nil || !slices.Contains([]string{"/usr/bin/sh", "/bin/sh", "/usr/local/bin/sh"}, path) {
		t.Errorf("without PATH sh is %q, %v", path, err)
	}
}

func TestStaysInside(t *testing.T) {
	for _, tt := range []struct {
		rel, link string
		want      bool
	}{
		{"a", "b", true},
		{"a", "./b/c", true},
		{"d/a", "../b", true},
		{"d/e/a", "../../b", true},
		{"a", "../b", false},
		{"d/a", "../../b", false},
		{"d/a", "x/../../../b", false},
		{"d/a", "x/../b", false}, // x may be a link itself
		{"a", "/etc/passwd", false},
		{"a", "", false},
		{".", "b", false},
		{"d/a", "..//../b", false},
	} {
		if got := staysInside(tt.rel, tt.link); got != tt.want {
			t.Errorf("%s -> %s: %v, want %v", tt.rel, tt.link, got, tt.want)
		}
	}
}

func TestResolveUser(t *testing.T) {
	id, err := resolveUser("0")
	if err != nil || id.uid != 0 || id.gid != 0 || id.home != "/root" {
		t.Errorf("root is %+v, %v", id, err)
	}
	id, err = resolveUser("root:12345")
	if err != nil || id.uid != 0 || id.gid != 12345 {
		t.Errorf("got %+v, %v", id, err)
	}
	id, err = resolveUser("54321")
	if err != nil || id.uid != 54321 || id.gid != 0 || id.home != "/" {
		t.Errorf("an unknown number is %+v, %v", id, err)
	}
	for _, bad := range []string{"", "nobody-of-that-name", "root:no-such-group", "-1"} {
		if _, err := resolveUser(bad); err == nil {
			t.Errorf("user %q was found", bad)
		}
	}
}

func TestReadOutputLimit(t *testing.T) {
	file := t.TempDir() + "/v"
	if err := os.WriteFile(file, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := readOutput(file, 100); err != nil || len(data) != 100 {
		t.Errorf("got %d bytes, %v", len(data), err)
	}
	if _, err := readOutput(file, 99); err == nil {
		t.Error("more than the limit was read")
	}
	if _, err := readOutput(file+"/x", 99); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("below a file: %v", err)
	}
	if _, err := readOutput("/proc/self/environ", 1<<20); err == nil {
		t.Error("a file of /proc was read")
	}
}
