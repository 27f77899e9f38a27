package artifact_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/store/artifact"
)

// tree is everything below a folder: modes of files and folders, targets of
// links, texts.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(folder, path)
		if err != nil || rel == "." {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			found[rel] = fmt.Sprintf("dir %o", info.Mode().Perm())
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			found[rel] = "link " + target
			return err
		default:
			data, err := os.ReadFile(path)
			found[rel] = fmt.Sprintf("%o %s", info.Mode().Perm(), data)
			return err
		}
		return nil
	})
	must(t, err)
	return found
}

func target(folder, path string) artifact.Target {
	return artifact.Target{Folder: folder, Path: path, Temporary: ".tmp-copy"}
}

func TestCopy(t *testing.T) {
	r, folder := open(t)
	write(t, filepath.Join(folder, "model", "a", "weights"), "ww")
	write(t, filepath.Join(folder, "model", "run.sh"), "#!")
	must(t, os.Chmod(filepath.Join(folder, "model", "run.sh"), 0o755))
	must(t, os.Symlink("a/weights", filepath.Join(folder, "model", "latest")))
	write(t, filepath.Join(folder, "plain"), "text")
	for _, name := range []string{"model", "plain"} {
		if _, err := r.Commit(t.Context(), ns, prefix+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	defer unix.Umask(unix.Umask(0o077))
	into := t.TempDir()
	info, err := artifact.Copy(t.Context(), r, ns, prefix+"/model", target(into, "all/b/model"))
	must(t, err)
	if diff := cmp.Diff(artifact.Info{Exists: true, Dir: true, Size: 4, Files: 2}, info); diff != "" {
		t.Error(diff)
	}
	_, err = artifact.Copy(t.Context(), r, ns, prefix+"/plain", target(into, "all/b/plain"))
	must(t, err)
	want := map[string]string{
		"all": "dir 777", "all/b": "dir 777", "all/b/model": "dir 777", "all/b/model/a": "dir 777", "all/b/model/a/weights": "666 ww",
		"all/b/model/run.sh": "777 #!", "all/b/model/latest": "link a/weights", "all/b/plain": "666 text",
	}
	if diff := cmp.Diff(want, tree(t, into)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What a user made of it is kept where that is asked for, and replaced where not.
	write(t, filepath.Join(into, "all/b/model/a/weights"), "mine")
	write(t, filepath.Join(into, "all/b/model/more"), "mine")
	keep := target(into, "all/b/model")
	keep.Keep = true
	if info, err := artifact.Copy(t.Context(), r, ns, prefix+"/model", keep); err != nil || info.Exists {
		t.Errorf("kept: %+v, %v", info, err)
	}
	if got := tree(t, into)["all/b/model/a/weights"]; !strings.HasSuffix(got, "mine") {
		t.Errorf("kept: %s", got)
	}
	_, err = artifact.Copy(t.Context(), r, ns, prefix+"/model", target(into, "all/b/model"))
	must(t, err)
	if diff := cmp.Diff(want, tree(t, into)); diff != "" {
		t.Errorf("copied again (-want +got):\n%s", diff)
	}
	// A file takes a folder's place, as one.
	_, err = artifact.Copy(t.Context(), r, ns, prefix+"/plain", target(into, "all/b/model"))
	must(t, err)
	if got := tree(t, into)["all/b/model"]; got != "666 text" {
		t.Errorf("a file over a folder: %s", got)
	}
}

func TestCopyRefuses(t *testing.T) {
	r, folder := open(t)
	write(t, filepath.Join(folder, "data", "x"), "x")
	outside := t.TempDir()
	write(t, filepath.Join(outside, "kept"), "kept")
	for name, make := range map[string]func(into string) (uri string, to artifact.Target){
		"a link for the first folder": func(into string) (string, artifact.Target) {
			must(t, os.Symlink(outside, filepath.Join(into, "all")))
			return "data", target(into, "all/data")
		},
		"a link on the way": func(into string) (string, artifact.Target) {
			must(t, os.Mkdir(filepath.Join(into, "all"), 0o777))
			must(t, os.Symlink(outside, filepath.Join(into, "all", "b")))
			return "data", target(into, "all/b/data")
		},
		"a file on the way": func(into string) (string, artifact.Target) {
			write(t, filepath.Join(into, "all", "b"), "")
			return "data", target(into, "all/b/data")
		},
		"a way out":     func(into string) (string, artifact.Target) { return "data", target(into, "all/../../data") },
		"no folder":     func(into string) (string, artifact.Target) { return "data", target(into, "data") },
		"nothing there": func(into string) (string, artifact.Target) { return "none", target(into, "all/data") },
		"a temporary path": func(into string) (string, artifact.Target) {
			return "data", artifact.Target{Folder: into, Path: "a/b", Temporary: "a/b"}
		},
		"a folder that is not": func(into string) (string, artifact.Target) {
			return "data", target(filepath.Join(into, "none"), "a/b")
		},
		"a link out of the artifact": func(into string) (string, artifact.Target) {
			must(t, os.MkdirAll(filepath.Join(folder, "out"), 0o777))
			must(t, os.Symlink(outside, filepath.Join(folder, "out", "link")))
			return "out", target(into, "all/data")
		},
	} {
		t.Run(name, func(t *testing.T) {
			into := t.TempDir()
			uri, to := make(into)
			if _, err := artifact.Copy(t.Context(), r, ns, prefix+"/"+uri, to); err == nil {
				t.Error("was copied")
			}
			for path := range tree(t, into) {
				if strings.Contains(path, ".tmp-copy") {
					t.Errorf("left %s", path)
				}
			}
			if diff := cmp.Diff(map[string]string{"kept": "644 kept"}, tree(t, outside)); diff != "" {
				t.Errorf("outside (-want +got):\n%s", diff)
			}
		})
	}
	// A link at the very place is replaced, not followed.
	into := t.TempDir()
	must(t, os.Mkdir(filepath.Join(into, "all"), 0o777))
	must(t, os.Symlink(outside, filepath.Join(into, "all", "data")))
	must(t, os.Symlink(outside, filepath.Join(into, "all", ".tmp-copy")))
	_, err := artifact.Copy(t.Context(), r, ns, prefix+"/data", target(into, "all/data"))
	must(t, err)
	if diff := cmp.Diff(map[string]string{"all": "dir 755", "all/data": "dir 777", "all/data/x": "666 x"}, tree(t, into)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"kept": "644 kept"}, tree(t, outside)); diff != "" {
		t.Errorf("outside (-want +got):\n%s", diff)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := artifact.Copy(ctx, r, ns, prefix+"/data", target(into, "all/other")); !errors.Is(err, gone) {
		t.Errorf("after the end: %v", err)
	}
}

const copyChild = "SKIFF_ARTIFACT_TEST_COPY"

// copyForever is the main of a child.
func copyForever(root string) int {
	r, err := artifact.Open(filepath.Join(root, "artifacts"))
	for err == nil {
		_, err = artifact.Copy(context.Background(), r, ns, prefix+"/data", target(filepath.Join(root, "into"), "all/data"))
		fmt.Println("copied")
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// TestCopyKilled kills a copying process at random moments: at its place the
// copy is whole each time, and the next one leaves nothing else.
func TestCopyKilled(t *testing.T) {
	root := t.TempDir()
	r, err := artifact.Open(filepath.Join(root, "artifacts"))
	must(t, err)
	defer func() { must(t, r.Close()) }()
	must(t, r.PrepareOutput(ns, prefix))
	at, err := r.Locate(ns, prefix+"/data")
	must(t, err)
	want := map[string]string{}
	for i := range 40 {
		name := fmt.Sprintf("d%d/f%d", i%4, i)
		write(t, filepath.Join(at.HostPath, name), strings.Repeat("x", 100*i))
		want[name] = "666 " + strings.Repeat("x", 100*i)
		want[filepath.Dir(name)] = "dir 777"
	}
	into := filepath.Join(root, "into")
	must(t, os.Mkdir(into, 0o777))
	binary, err := os.Executable()
	must(t, err)
	for round := range 12 {
		cmd := exec.CommandContext(t.Context(), binary)
		cmd.Env = append(os.Environ(), copyChild+"="+root)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		if !lines.Scan() { // one is whole, the next is under way
			t.Fatal("the child copies nothing")
		}
		time.Sleep(time.Duration(round) * time.Millisecond)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		if diff := cmp.Diff(want, tree(t, filepath.Join(into, "all", "data"))); diff != "" {
			t.Fatalf("round %d (-want +got):\n%s", round, diff)
		}
	}
	_, err = artifact.Copy(t.Context(), r, ns, prefix+"/data", target(into, "all/data"))
	must(t, err)
	if entries, err := os.ReadDir(filepath.Join(into, "all")); err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v", entries, err)
	}
}
