package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/test/corpus"
)

// together is how many pipelines run at once: enough to keep two cores busy
// while steps wait for their containers.
const together = 4

// caseLimit is how long one pipeline may take.
const caseLimit = 5 * time.Minute

func TestCorpusProcess(t *testing.T) { runCorpus(t, corpus.Process, ownCorpus(t)) }

func TestPublicCorpusProcess(t *testing.T) { runCorpus(t, corpus.Process, publicCorpus(t)) }

func ownCorpus(t *testing.T) []corpus.Pipeline {
	t.Helper()
	pipelines, err := corpus.Load("../corpus")
	if err != nil {
		t.Fatal(err)
	}
	return pipelines
}

// publicCorpus is the published one, where a copy lies beside the repository.
func publicCorpus(t *testing.T) []corpus.Pipeline {
	t.Helper()
	dir, err := filepath.Abs("../../../shared/conformance/kfp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "INDEX.md")); err != nil {
		t.Skip("no copy of the public corpus lies beside the repository")
	}
	pipelines, err := corpus.LoadPublic(dir)
	if err != nil {
		t.Fatal(err)
	}
	return pipelines
}

// fleet starts the daemons that cases need, one for each kind of machine.
type fleet struct {
	t       *testing.T
	runtime string
	mu      sync.Mutex
	plain   *daemon
	fake    *daemon
}

func (f *fleet) daemonFor(c corpus.Case) *daemon {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(c.Needs, corpus.NeedFakeNode) || slices.Contains(c.Needs, corpus.NeedFakeGPU) {
		if f.fake == nil {
			f.fake = newDaemon(f.t, "--runtime", f.runtime, "--fake-gpus", "dgx-a100", "--fake-node", "cpu=64,mem=256Gi")
		}
		return f.fake
	}
	if f.plain == nil {
		f.plain = newDaemon(f.t, "--runtime", f.runtime)
		f.plain.furnish()
	}
	return f.plain
}

// furnish makes the objects that pipelines of the corpora refer to.
func (d *daemon) furnish() {
	d.t.Helper()
	for _, args := range [][]string{
		{"secret", "create", "test-secret-1", "--from-literal", "username=user1"},
		{"secret", "create", "test-secret-2", "--from-literal", "password=psw1"},
		{"secret", "create", "test-secret-3", "--from-literal", "password=psw2"},
		{"secret", "create", "my-secret", "--from-literal", "key=value"},
		{"configmap", "create", "my-cm", "--from-literal", "key=value", "--from-literal", "settings.yaml=epochs: 3"},
		{"pvc", "create", "shared-data", "--size", "1Gi"},
	} {
		if r := d.skiff(d.t.Context(), args...); r.code != 0 {
			d.t.Fatalf("skiff %v: exit %d: %s", args, r.code, r.stderr)
		}
	}
}

// unreachable are needs that no machine without a network can meet. Such files
// are read and checked all the same.
var unreachable = []string{corpus.NeedNetwork, corpus.NeedCloud}

func runCorpus(t *testing.T, runtimeName string, pipelines []corpus.Pipeline) {
	if testing.Short() {
		t.Skip("runs some hundred pipelines")
	}
	f := &fleet{t: t, runtime: runtimeName}
	slots := make(chan struct{}, together)
	t.Run("files", func(t *testing.T) {
		for _, p := range pipelines {
			for _, c := range p.Cases {
				if len(c.Runtimes) > 0 && !slices.Contains(c.Runtimes, runtimeName) {
					continue
				}
				name := p.Name
				if c.Name != "" {
					name += "/" + c.Name
				}
				d := f.daemonFor(c)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					slots <- struct{}{}
					defer func() { <-slots }()
					runCase(t, d, p, c)
				})
			}
		}
	})
}

func runCase(t *testing.T, d *daemon, p corpus.Pipeline, c corpus.Case) {
	limit := caseLimit
	if c.Within > 0 {
		limit = time.Duration(c.Within) * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if c.State != corpus.Refused && slices.ContainsFunc(c.Needs, func(need string) bool { return slices.Contains(unreachable, need) }) {
		checkOnly(ctx, t, d, p, c)
		return
	}
	if limit > patience {
		cancelled(ctx, t, d, p, c)
		return
	}
	namespace, args := "default", []string{"--no-cache"}
	if c.Again != nil {
		// A namespace of its own: nothing in it comes from another case's run.
		namespace, args = "case-"+strings.ToLower(regexp.MustCompile(`[^a-zA-Z0-9]+`).ReplaceAllString(p.Name+"-"+c.Name, "-")), nil
		namespace = strings.TrimRight(namespace[:min(len(namespace), 50)], "-")
	}
	first := execute(ctx, t, d, p.File, namespace, c.Expect, args)
	if c.Again != nil {
		second := execute(ctx, t, d, p.File, namespace, c.Again.Expect, nil)
		if c.Again.SameOutputs && !reflect.DeepEqual(first.Outputs, second.Outputs) {
			t.Errorf("the second run gave %v, the first %v", second.Outputs, first.Outputs)
		}
	}
}

// patience is how long a test sits through a pipeline that only sleeps.
const patience = 5 * time.Minute

// cancelled starts a pipeline that would take too long, sees its first step
// run, and cancels it: all of it must end at once.
func cancelled(ctx context.Context, t *testing.T, d *daemon, p corpus.Pipeline, c corpus.Case) {
	id := d.submit(ctx, append([]string{p.File}, parameterFlags(t, c.Parameters)...)...)
	eventually(t, time.Minute, "a step runs", func() error {
		doc := document(t, d.skiff(ctx, "get", "runs", id, "-o", "json"))
		if slices.ContainsFunc(doc.Tasks, func(task taskDocument) bool { return task.State == "RUNNING" }) {
			return nil
		}
		return errors.New(doc.State)
	})
	if r := d.skiff(ctx, "cancel", id); r.code != 0 {
		t.Fatalf("cancel: exit %d: %s", r.code, r.stderr)
	}
	if doc := d.finished(ctx, id); doc.State != "CANCELED" {
		t.Errorf("it ended %s, want CANCELED\n%s", doc.State, tasksText(doc))
	}
}

// checkOnly reads a package whose run needs what is not here: it must be
// accepted, or refused for exactly what is not supported yet.
func checkOnly(ctx context.Context, t *testing.T, d *daemon, p corpus.Pipeline, c corpus.Case) {
	r := d.skiff(ctx, append([]string{"run", p.File, "--dry-run"}, parameterFlags(t, c.Parameters)...)...)
	switch {
	case r.code == 0:
	case r.code == 2 && strings.Contains(r.stderr, "not supported yet"):
	default:
		t.Errorf("skiff run --dry-run: exit %d, want 0, or 2 naming what is not supported\n%s", r.code, r.stderr)
	}
}

// parameterFlags passes a case's parameters by a file, so that they keep their types.
func parameterFlags(t *testing.T, parameters map[string]json.RawMessage) []string {
	t.Helper()
	if len(parameters) == 0 {
		return nil
	}
	data, err := json.Marshal(parameters)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "params.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--params-file", file}
}

// execute runs a package and holds what came of it against what is expected.
func execute(ctx context.Context, t *testing.T, d *daemon, file, namespace string, want corpus.Expect, extra []string) runDocument {
	t.Helper()
	args := append([]string{"run", file, "-n", namespace, "-o", "json"}, parameterFlags(t, want.Parameters)...)
	r := d.skiff(ctx, append(args, extra...)...)
	if want.State == corpus.Refused {
		if r.code != 2 || !matches(want.Message, r.stderr) {
			t.Errorf("exit %d, want 2 with a message like %q\n%s", r.code, want.Message, r.stderr)
		}
		return runDocument{}
	}
	if ctx.Err() != nil {
		t.Fatalf("the run took longer than it may\nstdout: %.2000s\nstderr: %.2000s", r.stdout, r.stderr)
	}
	if r.code == 2 {
		t.Fatalf("refused:\n%s", r.stderr)
	}
	doc := document(t, r)
	check := checker{t: t, doc: doc}
	check.state(r.code, want)
	check.outputs(want)
	check.artifacts(want)
	check.tasks(want)
	for task, text := range want.Logs {
		if log := d.skiff(ctx, "logs", "-n", namespace, doc.RunID+"/"+task); !strings.Contains(log.stdout, text) {
			t.Errorf("the log of %s does not contain %q:\n%.2000s%.2000s", task, text, log.stdout, log.stderr)
		}
	}
	if t.Failed() {
		t.Logf("run %s: %s %s\n%s", doc.RunID, doc.State, doc.Message, tasksText(doc))
	}
	return doc
}

func matches(pattern, text string) bool {
	return regexp.MustCompile("(?s)" + pattern).MatchString(text)
}

type checker struct {
	t   *testing.T
	doc runDocument
}

func (c *checker) state(code int, want corpus.Expect) {
	c.t.Helper()
	if c.doc.State != want.State {
		c.t.Errorf("the run ended %s, want %s", c.doc.State, want.State)
	}
	if codes := map[string]int{corpus.Succeeded: 0, corpus.Failed: 1}; code != codes[c.doc.State] {
		c.t.Errorf("exit code %d after %s", code, c.doc.State)
	}
	text := c.doc.Message
	for _, task := range c.doc.Tasks {
		text += "\n" + task.Message
	}
	if want.Message != "" && !matches(want.Message, text) {
		c.t.Errorf("no message is like %q:\n%s", want.Message, text)
	}
}

func (c *checker) outputs(want corpus.Expect) {
	c.t.Helper()
	for name, allowed := range want.OneOf {
		if !slices.ContainsFunc(allowed, func(raw json.RawMessage) bool { return reflect.DeepEqual(decode(c.t, raw), c.doc.Outputs[name]) }) {
			c.t.Errorf("output %s is %v, want one of %s", name, c.doc.Outputs[name], allowed)
		}
	}
	if len(want.Outputs) == 0 {
		return
	}
	expected := map[string]any{}
	for name, raw := range want.Outputs {
		expected[name] = decode(c.t, raw)
	}
	got := map[string]any{}
	for name, value := range c.doc.Outputs {
		if _, oneOf := want.OneOf[name]; !oneOf {
			got[name] = value
		}
	}
	if !reflect.DeepEqual(expected, got) {
		c.t.Errorf("outputs are\n%s\nwant\n%s", text(got), text(expected))
	}
}

func (c *checker) artifacts(want corpus.Expect) {
	c.t.Helper()
	for name, expected := range want.Artifacts {
		found := c.doc.output(name)
		if found == nil {
			c.t.Errorf("there is no output artifact %s", name)
			continue
		}
		if expected.URI != "" && found.URI != expected.URI {
			c.t.Errorf("artifact %s is at %s, want %s", name, found.URI, expected.URI)
		}
		if expected.Type != "" && found.Type != expected.Type {
			c.t.Errorf("artifact %s is a %s, want %s", name, found.Type, expected.Type)
		}
		for key, raw := range expected.Metadata {
			if !reflect.DeepEqual(found.Metadata[key], decode(c.t, raw)) {
				c.t.Errorf("artifact %s: metadata %s is %v, want %s", name, key, found.Metadata[key], raw)
			}
		}
	}
}

func (c *checker) tasks(want corpus.Expect) {
	c.t.Helper()
	byName := map[string]taskDocument{}
	for _, task := range c.doc.Tasks {
		byName[task.Name] = task
	}
	for path, expected := range want.Tasks {
		got, found := byName[path]
		switch {
		case !found:
			c.t.Errorf("there is no task %s", path)
		case expected.State != "" && got.State != expected.State,
			expected.Attempts != nil && got.Attempts != *expected.Attempts,
			expected.Cached != nil && got.Cached != *expected.Cached,
			expected.ExitCode != nil && (got.ExitCode == nil || *got.ExitCode != *expected.ExitCode):
			c.t.Errorf("task %s is %s, want %s", path, text(got), text(expected))
		}
	}
}

func decode(t *testing.T, raw json.RawMessage) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}
