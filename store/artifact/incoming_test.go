package artifact_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/store/artifact"
)

// receive brings an artifact of these files in.
func receive(t *testing.T, r *artifact.Repository, uri string, files map[string]string) {
	t.Helper()
	in, err := r.Receive(ns, uri)
	must(t, err)
	for path, text := range files {
		f, err := in.Create(path)
		must(t, err)
		_, err = f.WriteString(text)
		must(t, errors.Join(err, f.Close()))
	}
	must(t, in.Commit(t.Context()))
	must(t, in.Abort()) // a second end is none
}

func TestReceive(t *testing.T) {
	r, _ := open(t)
	uri := "s3://bucket/far/away"
	for _, files := range []map[string]string{
		{"": "a file"},
		{"": "another file in its place"},
		{"a": "1", "sub/deep/b": "2"},
		{"c": "a folder in the place of a folder"},
		{"": "a file in the place of a folder"},
	} {
		receive(t, r, uri, files)
		list, dir, err := r.Files(t.Context(), ns, uri)
		must(t, err)
		got := map[string]string{}
		for _, f := range list {
			got[f.Path] = read(t, r, uri, f.Path)
		}
		if diff := cmp.Diff(files, got); diff != "" {
			t.Errorf("what was received (-want +got):\n%s", diff)
		}
		if _, single := files[""]; dir == single {
			t.Errorf("%v: a folder: %v", files, dir)
		}
		at, err := r.Locate(ns, uri)
		must(t, err)
		if info, err := os.Stat(at.HostPath); err != nil || info.Mode().Perm()&0o222 != 0 {
			t.Errorf("it has mode %v, %v", info.Mode(), err)
		}
	}
	must(t, r.DropIncoming(t.Context()))
	if left, err := os.ReadDir(filepath.Join(r.Path(), ".incoming")); len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestReceiveNames: what a bucket calls its objects is not to be trusted.
func TestReceiveNames(t *testing.T) {
	r, folder := open(t)
	in, err := r.Receive(ns, "s3://bucket/x")
	must(t, err)
	make := func(path string) error {
		f, err := in.Create(path)
		if err == nil {
			err = f.Close()
		}
		return err
	}
	must(t, make("a/b"))
	for _, path := range []string{"..", "../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/.", "x\x00y", "trailing/", "a", "a/b", "a/b/c"} {
		if err := make(path); !errors.Is(err, artifact.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", path, err)
		}
	}
	must(t, in.Abort())
	// Nor is the place: a step may have put a link where the artifact goes.
	outside := t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(folder, "sub")))
	in, err = r.Receive(ns, prefix+"/sub/x")
	must(t, err)
	must(t, make(""))
	if err := in.Commit(t.Context()); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("commit through a link: %v, want ErrUnsafe", err)
	}
	if left, err := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("outside there is %v, %v", left, err)
	}
	// A link in the very place is replaced, not followed.
	secret := filepath.Join(outside, "secret")
	write(t, secret, "secret")
	must(t, os.Symlink(secret, filepath.Join(folder, "y")))
	receive(t, r, prefix+"/y", map[string]string{"": "mine"})
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
		t.Errorf("the link's target is %q, %v", data, err)
	}
	if text := read(t, r, prefix+"/y", ""); text != "mine" {
		t.Errorf("in its place is %q", text)
	}
}

func TestFiles(t *testing.T) {
	r, folder := open(t)
	write(t, filepath.Join(folder, "d/a"), "12")
	write(t, filepath.Join(folder, "d/b/c"), "3")
	must(t, os.Symlink("../a", filepath.Join(folder, "d/b/link")))
	must(t, os.Mkdir(filepath.Join(folder, "d/none"), 0o755))
	list, dir, err := r.Files(t.Context(), ns, prefix+"/d")
	must(t, err)
	if diff := cmp.Diff([]artifact.Member{{Path: "a", Size: 2}, {Path: "b/c", Size: 1}, {Path: "b/link", Size: 2}}, list); diff != "" || !dir {
		t.Errorf("files of a folder (-want +got), %v:\n%s", dir, diff)
	}
	must(t, os.Symlink("b", filepath.Join(folder, "d/loop")))
	if _, _, err := r.Files(t.Context(), ns, prefix+"/d"); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("a link to a folder: %v, want ErrUnsafe", err)
	}
}
