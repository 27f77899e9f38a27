package artifact_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/store/artifact"
)

// TestMain: the test binary is also its own child, which copies until it is killed.
func TestMain(m *testing.M) {
	if root := os.Getenv(copyChild); root != "" {
		os.Exit(copyForever(root))
	}
	goleak.VerifyTestMain(m)
}

func TestDigestOfAFile(t *testing.T) {
	r, folder := open(t)
	write(t, filepath.Join(folder, "f"), "hello\n")
	d, err := r.Digest(t.Context(), ns, prefix+"/f")
	must(t, err)
	// As sha256sum prints it.
	want := artifact.Digest{Digest: "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", Size: 6, Files: 1}
	if d != want {
		t.Errorf("digest %+v, want %+v", d, want)
	}
}

// TestDigestOfADirectory: equal contents have equal digests wherever and in
// whatever order they were written, and every difference shows.
func TestDigestOfADirectory(t *testing.T) {
	r, folder := open(t)
	build := func(name string, steps ...func(dir string)) string {
		dir := filepath.Join(folder, name)
		must(t, os.Mkdir(dir, 0o755))
		for _, step := range steps {
			step(dir)
		}
		d, err := r.Digest(t.Context(), ns, prefix+"/"+name)
		must(t, err)
		return d.Digest
	}
	file := func(name, text string) func(string) {
		return func(dir string) { write(t, filepath.Join(dir, name), text) }
	}
	link := func(target string) func(string) {
		return func(dir string) { must(t, os.Symlink(target, filepath.Join(dir, "l"))) }
	}
	base := build("base", file("a", "1"), file("b/c", "2"), link("a"))
	if same := build("same", link("a"), file("b/c", "2"), file("a", "1")); same != base {
		t.Errorf("the same contents have the digests %s and %s", base, same)
	}
	seen := map[string]string{base: "base"}
	for name, digest := range map[string]string{
		"other text": build("d1", file("a", "x"), file("b/c", "2"), link("a")),
		"other name": build("d2", file("A", "1"), file("b/c", "2"), link("a")),
		"other link": build("d3", file("a", "1"), file("b/c", "2"), link("b")),
		"moved":      build("d4", file("a", "1"), file("c", "2"), link("a")),
		"one more":   build("d5", file("a", "1"), file("b/c", "2"), link("a"), func(dir string) { must(t, os.Mkdir(filepath.Join(dir, "e"), 0o755)) }),
	} {
		if other, clash := seen[digest]; clash {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[digest] = name
	}
}

func TestDigestEndsWithItsContext(t *testing.T) {
	r, folder := open(t)
	write(t, filepath.Join(folder, "f"), "x")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := r.Digest(ctx, ns, prefix+"/f"); !errors.Is(err, cause) {
		t.Errorf("Digest: %v, want the context's cause", err)
	}
}

func TestHasher(t *testing.T) {
	r, folder := open(t)
	h := artifact.NewHasher(r, 3)
	const count = 50
	results := make(chan artifact.Result, count)
	for i := range count {
		write(t, filepath.Join(folder, fmt.Sprint(i)), fmt.Sprint(i))
		h.Add(ns, fmt.Sprintf("%s/%d", prefix, i), func(_ context.Context, res artifact.Result) { results <- res })
	}
	h.Add(ns, prefix+"/0", func(context.Context, artifact.Result) { t.Error("a second request for the same was run") })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	for range count {
		select {
		case res := <-results:
			want, err := r.Digest(ctx, ns, res.URI)
			if res.Err != nil || err != nil || res.Digest != want {
				t.Errorf("%s: %+v, %v; want %+v", res.URI, res.Digest, res.Err, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the hasher does not get on")
		}
	}
	if n := h.Pending(); n != 0 {
		t.Errorf("%d hashes are pending", n)
	}
	h.Add(ns, prefix+"/none", func(_ context.Context, res artifact.Result) { results <- res })
	if res := <-results; !errors.Is(res.Err, artifact.ErrNotFound) {
		t.Errorf("hash of nothing: %v, want ErrNotFound", res.Err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}
