package author_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/author"
)

func TestSplit(t *testing.T) {
	for arg, want := range map[string][2]string{
		"p.py":          {"p.py", ""},
		"a/b.py:train":  {"a/b.py", "train"},
		"C.py/x.py:f":   {"C.py/x.py", "f"},
		"a.py:b/c.yaml": {},
		"p.yaml":        {},
		"p.yaml:x":      {},
		"-":             {},
		"a.py:b/c.py":   {"a.py:b/c.py", ""},
	} {
		file, function, ok := author.Split(arg)
		if file != want[0] || function != want[1] || ok != (want[0] != "") {
			t.Errorf("%s: %q %q %v", arg, file, function, ok)
		}
	}
}

func TestFindInterpreter(t *testing.T) {
	dir := t.TempDir()
	program := func(path string) string {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	onPath, inVenv, asked := program("path/python3"), program("venv/bin/python"), program("asked")
	t.Setenv("PATH", filepath.Dir(onPath))
	t.Setenv("VIRTUAL_ENV", "")
	expect := func(name, want, asked string) {
		t.Helper()
		got, err := author.FindInterpreter(asked)
		if err != nil || got.Path != want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	expect("path", onPath, "")
	t.Setenv("VIRTUAL_ENV", filepath.Join(dir, "venv"))
	expect("environment", inVenv, "")
	expect("flag", asked, asked)
	if _, err := author.FindInterpreter(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "--python PATH") {
		t.Error(err)
	}
}
