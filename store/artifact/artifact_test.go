package artifact_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/store/artifact"
)

const (
	ns     = "default"
	prefix = "minio://mlpipeline/v2/artifacts/p/run/task/0"
)

// open makes a repository and an attempt's output folder in it.
func open(t *testing.T) (r *artifact.Repository, folder string) {
	t.Helper()
	r, err := artifact.Open(filepath.Join(t.TempDir(), "artifacts"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own clean-up cannot remove read-only folders where it is
		// not root.
		if err := r.DeleteNamespace(t.Context(), ns); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := r.PrepareOutput(ns, prefix); err != nil {
		t.Fatal(err)
	}
	at, err := r.Locate(ns, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return r, at.HostPath
}

// write makes a file with its folders.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLocate(t *testing.T) {
	r, _ := open(t)
	for uri, want := range map[string]string{
		"minio://mlpipeline/v2/artifacts/x": "/minio/mlpipeline/v2/artifacts/x",
		"s3://bucket/a b/ü":                 "/s3/bucket/a b/ü",
		"gs://bucket/dir/":                  "/gcs/bucket/dir",
		"minio://b/100%":                    "/minio/b/100%",
	} {
		at, err := r.Locate(ns, uri)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		if at.ContainerPath != want {
			t.Errorf("%s is %s in a container, want %s", uri, at.ContainerPath, want)
		}
		if want := filepath.Join(r.Path(), ns, want); at.HostPath != want {
			t.Errorf("%s is %s on the host, want %s", uri, at.HostPath, want)
		}
	}
}

func TestLocateRefuses(t *testing.T) {
	r, _ := open(t)
	for _, uri := range []string{
		"", "minio://", "minio:///x", "minio://b//x", "minio://b/../../x", "minio://..", "minio://b/.", "minio://b/x\x00y",
		"minio://b/x\\..\\y", "minio://b/%2e%2e/x", "minio://b/%2Fetc", "minio://b/a\nb", "file:///etc/passwd", "/etc/passwd",
		"http://", "https://user@b/x", "https:///x", "ftp://b/x", "minio://b/\xff", "minio://b/" + strings.Repeat("x", 256), "minio://b/" + strings.Repeat("x/", 2000) + "y",
	} {
		if at, err := r.Locate(ns, uri); !errors.Is(err, artifact.ErrInvalid) {
			t.Errorf("Locate(%q) = %+v, %v; want ErrInvalid", uri, at, err)
		}
	}
	for _, namespace := range []string{"", ".", "..", "a/b", ".hidden", "a\x00", "%2e%2e"} {
		if _, err := r.Locate(namespace, "minio://b/x"); !errors.Is(err, artifact.ErrInvalid) {
			t.Errorf("namespace %q: %v; want ErrInvalid", namespace, err)
		}
		if _, err := r.MountRoots(namespace); !errors.Is(err, artifact.ErrInvalid) {
			t.Errorf("mount roots of namespace %q: %v; want ErrInvalid", namespace, err)
		}
	}
}

func FuzzLocate(f *testing.F) {
	for _, seed := range []string{"minio://a/b", "s3://a/../b", "gs://a/%2e%2e/b", "minio://a/b\\c"} {
		f.Add("default", seed)
	}
	r, err := artifact.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = r.Close() })
	f.Fuzz(func(t *testing.T, namespace, uri string) {
		at, err := r.Locate(namespace, uri)
		if err != nil {
			return
		}
		base := filepath.Join(r.Path(), namespace)
		if relative, err := filepath.Rel(base, at.HostPath); err != nil || !filepath.IsLocal(relative) || filepath.Dir(base) != r.Path() {
			t.Errorf("Locate(%q, %q) leaves the namespace: %s", namespace, uri, at.HostPath)
		}
	})
}

func TestModes(t *testing.T) {
	r, folder := open(t)
	roots, err := r.MountRoots(ns)
	must(t, err)
	if len(roots) != 3 || roots[0].ContainerPath != "/minio" || roots[2].ContainerPath != "/gcs" {
		t.Errorf("mount roots: %+v", roots)
	}
	for path, want := range map[string]os.FileMode{r.Path(): 0o700, roots[0].HostPath: 0o755, filepath.Dir(folder): 0o755, folder: 0o777} {
		info, err := os.Stat(path)
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	hostPath, writable, err := r.HostPath(ns, "minio/mlpipeline/v2/artifacts/p/run/task/0")
	if err != nil || !writable || hostPath != folder {
		t.Errorf("HostPath = %q, %v, %v", hostPath, writable, err)
	}
	if _, writable, err := r.HostPath(ns, "minio/mlpipeline"); err != nil || writable {
		t.Errorf("a bucket is writable: %v, %v", writable, err)
	}
	must(t, r.PrepareOutput(ns, prefix)) // a repeated start
}

func TestCommitMakesImmutable(t *testing.T) {
	r, folder := open(t)
	write(t, filepath.Join(folder, "model/weights.bin"), "0123456789")
	write(t, filepath.Join(folder, "model/sub/config.json"), "{}")
	must(t, os.Symlink("../weights.bin", filepath.Join(folder, "model/sub/latest")))
	info, err := r.Commit(t.Context(), ns, prefix+"/model")
	must(t, err)
	if diff := cmp.Diff(artifact.Info{Exists: true, Dir: true, Size: 12, Files: 2}, info); diff != "" {
		t.Errorf("what was committed (-want +got):\n%s", diff)
	}
	must(t, filepath.Walk(filepath.Join(folder, "model"), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode()&os.ModeSymlink == 0 && info.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s has mode %v after the commit", path, info.Mode())
		}
		return err
	}))
	again, err := r.Commit(t.Context(), ns, prefix+"/model")
	if err != nil || again != info {
		t.Errorf("a repeated commit found %+v, %v; want %+v", again, err, info)
	}
	text := read(t, r, prefix+"/model", "sub/latest")
	if text != "0123456789" {
		t.Errorf("a link inside the artifact reads as %q", text)
	}
	must(t, r.Delete(t.Context(), ns, prefix))
	if _, err := os.Lstat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a committed tree was not removed: %v", err)
	}
}

func TestCommitOfNothing(t *testing.T) {
	r, _ := open(t)
	for _, uri := range []string{prefix + "/never", "s3://other/bucket/x"} {
		info, err := r.Commit(t.Context(), ns, uri)
		if err != nil || info.Exists {
			t.Errorf("commit of nothing: %+v, %v", info, err)
		}
		if r.Exists(ns, uri) {
			t.Errorf("%s exists", uri)
		}
		if _, err := r.Open(ns, uri, ""); !errors.Is(err, artifact.ErrNotFound) {
			t.Errorf("open of nothing: %v, want ErrNotFound", err)
		}
		must(t, r.Delete(t.Context(), ns, uri))
	}
}

func read(t *testing.T, r *artifact.Repository, uri, subpath string) string {
	t.Helper()
	f, err := r.Open(ns, uri, subpath)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	data, err := io.ReadAll(f)
	must(t, err)
	return string(data)
}

// TestHostile puts in the way what a user's code could, and expects each to be
// refused by everything that reads, at once, and the secret to be safe.
func TestHostile(t *testing.T) {
	for _, one := range []struct {
		name string
		// put makes the obstacle at path; secret is a file outside.
		put func(t *testing.T, path, secret string)
		// inside is true where the obstacle lies in an artifact, false where it
		// is the artifact.
		inside bool
	}{
		{"link as artifact", func(t *testing.T, path, secret string) { must(t, os.Symlink(secret, path)) }, false},
		{"link to folder as artifact", func(t *testing.T, path, secret string) { must(t, os.Symlink(filepath.Dir(secret), path)) }, false},
		{"FIFO as artifact", func(t *testing.T, path, _ string) { must(t, unix.Mkfifo(path, 0o666)) }, false},
		{"socket as artifact", func(t *testing.T, path, _ string) { socket(t, path) }, false},
		{"absolute link inside", func(t *testing.T, path, secret string) { must(t, os.Symlink(secret, path)) }, true},
		{"relative link out", func(t *testing.T, path, secret string) {
			relative, err := filepath.Rel(filepath.Dir(path), secret)
			must(t, err)
			must(t, os.Symlink(relative, path))
		}, true},
		{"dangling link", func(t *testing.T, path, _ string) { must(t, os.Symlink("nowhere", path)) }, true},
		{"link to itself", func(t *testing.T, path, _ string) { must(t, os.Symlink(filepath.Base(path), path)) }, true},
		{"link to /proc", func(t *testing.T, path, _ string) { must(t, os.Symlink("/proc/self/environ", path)) }, true},
		{"FIFO inside", func(t *testing.T, path, _ string) { must(t, unix.Mkfifo(path, 0o666)) }, true},
		{"socket inside", func(t *testing.T, path, _ string) { socket(t, path) }, true},
	} {
		t.Run(one.name, func(t *testing.T) {
			r, folder := open(t)
			secret := filepath.Join(t.TempDir(), "secret")
			write(t, secret, "secret")
			must(t, os.Chmod(secret, 0o640))
			uri, subpath, path := prefix+"/out", "", filepath.Join(folder, "out")
			if one.inside {
				must(t, os.Mkdir(path, 0o777))
				subpath, path = "x", filepath.Join(path, "x")
			}
			one.put(t, path, secret)
			if info, err := r.Commit(t.Context(), ns, uri); !errors.Is(err, artifact.ErrUnsafe) {
				t.Errorf("Commit: %+v, %v; want ErrUnsafe", info, err)
			}
			if f, err := r.Open(ns, uri, subpath); err == nil {
				t.Errorf("Open gave %s", f.Name())
			}
			if !one.inside {
				if r.Exists(ns, uri) {
					t.Error("Exists says so")
				}
				if _, err := r.Digest(t.Context(), ns, uri); !errors.Is(err, artifact.ErrUnsafe) {
					t.Errorf("Digest: %v; want ErrUnsafe", err)
				}
			}
			must(t, r.Delete(t.Context(), ns, uri))
			info, err := os.Stat(secret)
			must(t, err)
			if info.Mode().Perm() != 0o640 {
				t.Errorf("the secret's mode became %v", info.Mode())
			}
		})
	}
}

func socket(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	t.Chdir(filepath.Dir(path)) // a socket's path must be short
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Base(path)}))
}

// TestSwappedFolder replaces a folder on the way to an artifact by a link to
// another namespace's, as a step that outlives its attempt could.
func TestSwappedFolder(t *testing.T) {
	r, folder := open(t)
	other := "minio://mlpipeline/theirs"
	must(t, r.PrepareOutput("other", other))
	at, err := r.Locate("other", other)
	must(t, err)
	write(t, filepath.Join(at.HostPath, "data"), "theirs")
	must(t, os.Symlink(at.HostPath, filepath.Join(folder, "sub")))
	uri := prefix + "/sub/data"
	if r.Exists(ns, uri) {
		t.Error("Exists followed the link")
	}
	if _, err := r.Open(ns, uri, ""); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("Open: %v; want ErrUnsafe", err)
	}
	if _, err := r.Commit(t.Context(), ns, uri); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("Commit: %v; want ErrUnsafe", err)
	}
	if err := r.PrepareOutput(ns, prefix+"/sub/new"); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("PrepareOutput: %v; want ErrUnsafe", err)
	}
	if err := r.Delete(t.Context(), ns, uri); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("Delete: %v; want ErrUnsafe", err)
	}
	must(t, r.Delete(t.Context(), ns, prefix))
	if data, err := os.ReadFile(filepath.Join(at.HostPath, "data")); err != nil || string(data) != "theirs" {
		t.Errorf("the other namespace's file is %q, %v", data, err)
	}
}

// TestSwapRace swaps a file for a link to another namespace's while it is
// opened, over and over: what is read is never theirs.
func TestSwapRace(t *testing.T) {
	r, folder := open(t)
	theirs := filepath.Join(t.TempDir(), "theirs")
	write(t, theirs, "theirs")
	path := filepath.Join(folder, "x")
	ours, link := filepath.Join(folder, "ours"), filepath.Join(folder, "link")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// A rename replaces what is there in one step.
			if os.WriteFile(ours, []byte("ours"), 0o600) != nil || os.Rename(ours, path) != nil ||
				os.Symlink(theirs, link) != nil || os.Rename(link, path) != nil {
				return
			}
		}
	}()
	opened := 0
	for range 20000 {
		f, err := r.Open(ns, prefix+"/x", "")
		if err != nil {
			continue
		}
		data, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil || string(data) == "theirs" {
			t.Fatalf("read %q, %v", data, err)
		}
		opened++
	}
	close(stop)
	<-stopped
	if opened == 0 {
		t.Error("the file was never there: the test proves nothing")
	}
}

func TestHardLink(t *testing.T) {
	r, folder := open(t)
	outside := filepath.Join(filepath.Dir(r.Path()), "outside")
	write(t, outside, "before")
	must(t, os.Link(outside, filepath.Join(folder, "out")))
	if _, err := r.Open(ns, prefix+"/out", ""); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("Open of a file with a second hard link: %v; want ErrUnsafe", err)
	}
	// Its own owner's: the commit takes a copy, and the other name has no power
	// over it.
	if _, err := r.Commit(t.Context(), ns, prefix+"/out"); err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(outside, []byte("after!"), 0o600))
	if text := read(t, r, prefix+"/out", ""); text != "before" {
		t.Errorf("the committed artifact became %q", text)
	}
}

func TestHardLinkOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of two owners")
	}
	r, folder := open(t)
	must(t, os.Mkdir(filepath.Join(folder, "out"), 0o777))
	must(t, os.Chown(filepath.Join(folder, "out"), 12345, 12345))
	secret := filepath.Join(filepath.Dir(r.Path()), "secret")
	write(t, secret, "secret")
	must(t, os.Link(secret, filepath.Join(folder, "out", "x")))
	if _, err := r.Commit(t.Context(), ns, prefix+"/out"); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("Commit: %v; want ErrUnsafe", err)
	}
	if _, err := r.Digest(t.Context(), ns, prefix+"/out"); !errors.Is(err, artifact.ErrUnsafe) {
		t.Errorf("Digest: %v; want ErrUnsafe", err)
	}
}

func TestOpenRefusesToLeave(t *testing.T) {
	r, folder := open(t)
	write(t, filepath.Join(folder, "out/a"), "a")
	write(t, filepath.Join(folder, "b"), "b")
	for _, subpath := range []string{"../b", "..", "a/../../b", "./a", "a//b", "\x00"} {
		if _, err := r.Open(ns, prefix+"/out", subpath); !errors.Is(err, artifact.ErrInvalid) {
			t.Errorf("Open %q: %v; want ErrInvalid", subpath, err)
		}
	}
	if _, err := r.Open(ns, prefix+"/out", ""); !errors.Is(err, artifact.ErrInvalid) {
		t.Errorf("Open of a directory: %v; want ErrInvalid", err)
	}
	entries, err := r.List(ns, prefix, "")
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name)
	}
	if diff := cmp.Diff([]string{"b", "out"}, got); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
}
