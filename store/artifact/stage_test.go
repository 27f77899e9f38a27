package artifact_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/store/artifact"
)

// TestWalkAndTreeDigest: what a walk tells, with the files' hashes, is what the
// digest is made of.
func TestWalkAndTreeDigest(t *testing.T) {
	r, folder := open(t)
	write(t, filepath.Join(folder, "out/b/z"), "z")
	write(t, filepath.Join(folder, "out/b.txt"), "between the folder and what is in it, by bytes")
	write(t, filepath.Join(folder, "out/b/a a\n"), "odd name")
	must(t, os.Chmod(filepath.Join(folder, "out/b.txt"), 0o755))
	must(t, os.Mkdir(filepath.Join(folder, "out/empty"), 0o755))
	must(t, os.Symlink("../b.txt", filepath.Join(folder, "out/b/link")))
	write(t, filepath.Join(folder, "single"), "one")
	for _, name := range []string{"out", "single"} {
		uri := prefix + "/" + name
		_, err := r.Commit(t.Context(), ns, uri)
		must(t, err)
		var nodes []artifact.Node
		var paths []string
		must(t, r.Walk(t.Context(), ns, uri, func(n artifact.Node) error {
			paths = append(paths, n.Path)
			if n.Executable != (n.Path == "b.txt") {
				t.Errorf("%q: executable is %v", n.Path, n.Executable)
			}
			if n.Kind == artifact.File {
				sum := sha256.Sum256([]byte(read(t, r, uri, n.Path)))
				n.SHA256 = hex.EncodeToString(sum[:])
			}
			if n.Path != "" || n.Kind == artifact.File {
				nodes = append(nodes, n)
			}
			return nil
		}))
		want, err := r.Digest(t.Context(), ns, uri)
		must(t, err)
		// The order in which the nodes are given is no matter.
		for i, j := 0, len(nodes)-1; i < j; i, j = i+1, j-1 {
			nodes[i], nodes[j] = nodes[j], nodes[i]
		}
		hashes := r.FileHashes(want.Digest)
		for _, n := range nodes {
			if name == "out" && n.Kind == artifact.File && hashes[n.Path] != n.SHA256 {
				t.Errorf("the listing has %q for %q, want %q", hashes[n.Path], n.Path, n.SHA256)
			}
		}
		if name == "single" && hashes != nil {
			t.Errorf("a file has a listing: %v", hashes)
		}
		if diff := cmp.Diff(want, artifact.TreeDigest(nodes)); diff != "" {
			t.Errorf("%s: digest (-want +got):\n%s", name, diff)
		}
		if name == "out" {
			if diff := cmp.Diff([]string{"", "b", "b/a a\n", "b/link", "b/z", "b.txt", "empty"}, paths); diff != "" {
				t.Errorf("walk (-want +got):\n%s", diff)
			}
		}
	}
	if err := r.Walk(t.Context(), ns, prefix+"/none", func(artifact.Node) error { return nil }); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("walk of nothing: %v", err)
	}
}

// fill puts an artifact with a folder, a file and a link on a stage.
func fill(t *testing.T, s *artifact.Stage) {
	t.Helper()
	must(t, s.Mkdir("a"))
	must(t, s.Mkdir("a/sub"))
	f, err := s.Create("a/sub/tool", true)
	must(t, err)
	_, err = io.WriteString(f, "#!/bin/sh\n")
	must(t, errors.Join(err, f.Close()))
	must(t, s.Symlink("a/link", "sub/tool"))
}

// TestListingProvesItself: one that was changed is none.
func TestListingProvesItself(t *testing.T) {
	r, folder := open(t)
	write(t, filepath.Join(folder, "out/a"), "a")
	digest, err := r.Digest(t.Context(), ns, prefix+"/out")
	must(t, err)
	if r.FileHashes(digest.Digest)["a"] == "" {
		t.Error("there is no listing")
	}
	path := filepath.Join(r.Path(), ".listings", strings.TrimPrefix(digest.Digest, artifact.DigestPrefix))
	must(t, os.WriteFile(path, []byte("f 00 1 \"a\"\n"), 0o600))
	if hashes := r.FileHashes(digest.Digest); hashes != nil {
		t.Errorf("a spoilt listing says %v", hashes)
	}
	for _, digest := range []string{"", "sha256:", "sha256:../../x", "md5:x"} {
		if hashes := r.FileHashes(digest); hashes != nil {
			t.Errorf("%q has %v", digest, hashes)
		}
	}
}

func TestStage(t *testing.T) {
	r, folder := open(t)
	s, err := r.NewStage("one")
	must(t, err)
	fill(t, s)
	info, err := s.Seal(t.Context(), "a")
	must(t, err)
	if diff := cmp.Diff(artifact.Info{Exists: true, Dir: true, Size: 10, Files: 1}, info); diff != "" {
		t.Errorf("sealed (-want +got):\n%s", diff)
	}
	uri := "minio://mlpipeline/v2/artifacts/q/run/task/1/model"
	must(t, s.Sync())
	must(t, s.Publish(ns, uri, "a", false))
	if text := read(t, r, uri, "link"); text != "#!/bin/sh\n" {
		t.Errorf("published contents: %q", text)
	}
	at, err := r.Locate(ns, uri)
	must(t, err)
	for name, want := range map[string]os.FileMode{"": 0o555, "sub": 0o555, "sub/tool": 0o555} {
		st, err := os.Stat(filepath.Join(at.HostPath, name))
		must(t, err)
		if st.Mode().Perm() != want {
			t.Errorf("%q has mode %o", name, st.Mode().Perm())
		}
	}

	// What is there stays, and nothing gets into an artifact or a step's folder.
	fill(t, s)
	if err := s.Publish(ns, uri, "a", false); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another: %v; want ErrExist", err)
	}
	if err := s.Publish(ns, uri+"/sub/more", "a", true); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("into an artifact: %v; want ErrUnsafe", err)
	}
	if err := s.Publish(ns, prefix+"/x", "a", false); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("into a step's folder: %v; want ErrUnsafe", err)
	}
	must(t, os.Symlink(t.TempDir(), filepath.Join(folder, "out")))
	if err := s.Publish(ns, prefix+"/out/x", "a", true); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("through a link: %v; want ErrUnsafe", err)
	}
	must(t, s.Publish(ns, prefix+"/x", "a", true))
	if st, err := os.Stat(folder); err != nil || st.Mode().Perm() != 0o777 {
		t.Errorf("the step's folder became %v, %v", st.Mode(), err)
	}

	list, err := r.Stages()
	must(t, err)
	if diff := cmp.Diff([]string{"one"}, list); diff != "" {
		t.Errorf("stages (-want +got):\n%s", diff)
	}
	fill(t, s)
	must(t, s.Remove(t.Context()))
	if list, err := r.Stages(); err != nil || len(list) != 0 {
		t.Errorf("stages after the removal: %v, %v", list, err)
	}
	if _, err := r.OpenStage("one"); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("a removed stage: %v", err)
	}
}

func TestStageRefuses(t *testing.T) {
	r, _ := open(t)
	for _, id := range []string{"", "..", "a/b", "."} {
		if _, err := r.NewStage(id); !errors.Is(err, artifact.ErrInvalid) {
			t.Errorf("stage %q: %v", id, err)
		}
	}
	s, err := r.NewStage("one")
	must(t, err)
	for _, name := range []string{"", "..", "../x", "a/../../x"} {
		if f, err := s.Create(name, false); err == nil {
			t.Errorf("Create(%q) made %s", name, f.Name())
		}
		if err := s.Mkdir(name); err == nil {
			t.Errorf("Mkdir(%q) made something", name)
		}
	}
	outside := t.TempDir()
	must(t, s.Symlink("link", outside))
	if _, err := s.Create("link/x", false); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("through a link: %v; want ErrUnsafe", err)
	}
	must(t, s.Mkdir("a"))
	must(t, s.Symlink("a/out", "../../x"))
	if _, err := s.Seal(t.Context(), "a"); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("a link out was sealed: %v", err)
	}
	must(t, s.Remove(t.Context()))
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("what the link ended at is gone: %v", err)
	}
}
