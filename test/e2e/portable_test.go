package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// portablePipeline is testdata/portable.yaml with an image in it.
func portablePipeline(t *testing.T, image string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/portable.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "portable.yaml")
	if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("IMAGE"), []byte(image)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// comparison is the part of `reproduce -o json` that the tests read.
type comparison struct {
	Identical  bool   `json:"identical"`
	Original   string `json:"original"`
	Reproduced string `json:"reproduced"`
	Tasks      []struct {
		Name        string `json:"name"`
		Identical   bool   `json:"identical"`
		Differences []struct {
			What, Name string
		} `json:"differences"`
	} `json:"tasks"`
}

// done runs a command that must succeed.
func (d *daemon) done(ctx context.Context, args ...string) string {
	d.t.Helper()
	r := d.skiff(ctx, args...)
	if r.code != 0 {
		d.t.Fatalf("skiff %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

func (d *daemon) reproduce(ctx context.Context, id string, code int) comparison {
	d.t.Helper()
	r := d.skiff(ctx, "reproduce", id, "-o", "json")
	var c comparison
	if err := json.Unmarshal([]byte(r.stdout), &c); err != nil || r.code != code {
		d.t.Fatalf("reproduce: exit %d, want %d: %v\n%s%s", r.code, code, err, r.stdout, r.stderr)
	}
	return c
}

// TestPortable takes a run from one daemon to another and runs it again there.
func TestPortable(t *testing.T) { portable(t, "busybox", nil, "--runtime", "process") }

func portable(t *testing.T, image string, with []string, flags ...string) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	a, b := newDaemon(t, flags...), newDaemon(t, flags...)
	pipeline := portablePipeline(t, image)
	a.done(ctx, "pipeline", "upload", pipeline, "--name", "portable")
	id := a.submit(ctx, pipeline)
	noisy := a.submit(ctx, pipeline, "-p", "noise=true")
	for _, run := range []string{id, noisy} {
		if doc := a.finished(ctx, run); doc.State != "SUCCEEDED" {
			t.Fatalf("run %s ended %s\n%s", run, doc.State, tasksText(doc))
		}
	}
	bundle := filepath.Join(t.TempDir(), "portable.tar.gz")
	a.done(ctx, append([]string{"export", "pipeline", "portable", "--runs", "--artifacts", "-o", bundle}, with...)...)
	if again := a.skiff(ctx, "export", "run", id, "-o", bundle); again.code != 2 {
		t.Errorf("an export over a file: exit %d %s", again.code, again.stderr)
	}

	// Spoilt, it is refused with its reason, however much of it is sent.
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := filepath.Join(t.TempDir(), "spoilt.tar.gz")
	if err := os.WriteFile(spoilt, data[:len(data)-9], 0o600); err != nil {
		t.Fatal(err)
	}
	if r := b.skiff(ctx, "import", spoilt); r.code != 2 || !strings.Contains(r.stderr, "not whole") {
		t.Errorf("a bundle that breaks off: exit %d %s", r.code, r.stderr)
	}
	if runs := b.done(ctx, "get", "runs", "-o", "json"); strings.Contains(runs, id) {
		t.Errorf("a refused import left %s", runs)
	}

	out := b.done(ctx, "import", bundle)
	for _, want := range []string{"pipeline portable imported", "run " + id + " imported", "contents of 4 artifacts imported"} {
		if !strings.Contains(out, want) {
			t.Errorf("import printed %q, want %q in it", out, want)
		}
	}
	if again := b.done(ctx, "import", bundle); strings.Contains(again, "imported") || !strings.Contains(again, "run "+id+" is here already") {
		t.Errorf("the second import printed %q", again)
	}
	if list := b.done(ctx, "get", "runs"); !strings.Contains(list, "SUCCEEDED (imported)") {
		t.Errorf("runs are shown as\n%s", list)
	}
	if logs := b.skiff(ctx, "logs", id); logs.code == 0 || !strings.Contains(logs.stderr, "imported") {
		t.Errorf("logs of an imported run: exit %d %s", logs.code, logs.stderr)
	}
	if retry := b.skiff(ctx, "retry", id); retry.code == 0 {
		t.Errorf("an imported run was retried: %s", retry.stdout)
	}
	if got, want := b.finished(ctx, id), a.finished(ctx, id); got.Outputs["count"] != want.Outputs["count"] || len(got.Artifacts) != len(want.Artifacts) {
		t.Errorf("the imported run has %v, want %v", got, want)
	}

	if c := b.reproduce(ctx, id, 0); !c.Identical || c.Original != id || len(c.Tasks) != 2 {
		t.Errorf("reproduced: %+v", c)
	}
	c := b.reproduce(ctx, noisy, 1)
	if c.Identical || len(c.Tasks) != 2 || c.Tasks[0].Name != "make" || c.Tasks[0].Identical || !c.Tasks[1].Identical {
		t.Fatalf("reproduced with noise: %+v", c)
	}
	if d := c.Tasks[0].Differences[0]; d.What != "artifact" || d.Name != "data" {
		t.Errorf("what differs is %+v", d)
	}
	// What ran here last travels, too, and a pipeline comes as a package.
	if doc := b.finished(ctx, c.Reproduced); doc.State != "SUCCEEDED" {
		t.Errorf("the reproduction ended %s", doc.State)
	}
	if out := a.done(ctx, "import", pipeline, "--as", "copy"); !strings.Contains(out, "pipeline copy imported") {
		t.Errorf("import of a package printed %q", out)
	}
}

// TestTravelExample runs the example as a person would, with a pipeline that
// needs no packages.
func TestTravelExample(t *testing.T) {
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "../../examples/travel/travel.sh", portablePipeline(t, "busybox"), "--runtime", "process")
	cmd.Env = append(os.Environ(), "SKIFF="+bin)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), " is identical to run ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestImportKilled kills the daemon during imports: afterwards there is all of
// the bundle or nothing, and in the end all.
func TestImportKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("kills a daemon again and again")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	a := newDaemon(t, "--runtime", "process")
	id := a.submit(ctx, portablePipeline(t, "busybox"), "-p", "kilobytes=96000")
	a.finished(ctx, id)
	bundle := filepath.Join(t.TempDir(), "big.tar")
	a.done(ctx, "export", "run", id, "--artifacts", "-o", bundle)

	d := newDaemon(t, "--runtime", "process")
	begin := time.Now()
	d.done(ctx, "import", bundle, "--dry-run")
	whole := time.Since(begin)
	for range 8 {
		cmd := exec.CommandContext(ctx, d.bin, "import", bundle)
		cmd.Env = append(os.Environ(), "SKIFF_STATE_DIR="+d.state, "SKIFF_HOST=http://"+d.addr)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.Int64N(int64(2*whole) + 1)))
		d.kill()
		_ = cmd.Wait() // it may have been in time
		d.start()
		// A command that needs the engines waits for their clearing up.
		d.done(ctx, "top")
		runs := strings.Contains(d.done(ctx, "get", "runs", "-o", "json"), id)
		files := left(t, d.state)
		switch {
		case runs && files != 4, !runs && files != 0:
			t.Fatalf("the run is there: %v, and %d files of its artifacts", runs, files)
		}
		if stages, err := os.ReadDir(filepath.Join(d.state, "artifacts", ".stages")); err == nil && len(stages) > 0 {
			t.Fatalf("%d stages are left", len(stages))
		}
	}
	d.done(ctx, "import", bundle)
	if c := d.reproduce(ctx, id, 0); !c.Identical {
		t.Errorf("reproduced: %+v", c)
	}
}

// left counts the files of all artifacts.
func left(t *testing.T, state string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(state, "artifacts", "default"), func(_ string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			n++
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
