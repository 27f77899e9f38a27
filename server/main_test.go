package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "skf_test-token"

// fixture is a server over a real store, with the rooms below played by the
// test.
type fixture struct {
	*server.Server
	store *store.Store
	rooms *rooms
}

// rooms plays engines and runtime.
type rooms struct {
	submitted []server.Submission
	store     store.Interface
	logs      map[string]string
	gate      chan struct{}
}

func (r *rooms) Check(_ context.Context, s server.Submission) error {
	if string(s.Package) == "bad" {
		list := problem.List{}
		list.Add("root.dag", "there is no task").Hint = "add one"
		list[0].Object, list[0].Line = s.Filename, 3
		return list
	}
	return nil
}

func (r *rooms) Submit(ctx context.Context, s server.Submission) (*skiff.Run, error) {
	if err := r.Check(ctx, s); err != nil {
		return nil, err
	}
	r.submitted = append(r.submitted, s)
	run := &skiff.Run{ObjectMeta: core.ObjectMeta{Name: fmt.Sprintf("run-%d", len(r.submitted)), Namespace: s.Namespace},
		Spec: skiff.RunSpec{PipelineName: "p", DisplayName: s.DisplayName}, Status: skiff.RunStatus{State: skiff.StatePending}}
	_, err := r.store.Commit(ctx, store.Op{Verb: store.Create, Kind: "runs.skiff.dev", Object: run})
	return run, err
}

func (r *rooms) Inspect(ctx context.Context, namespace, filename string, data []byte) (*skiff.PipelineManifest, error) {
	if err := r.Check(ctx, server.Submission{Namespace: namespace, Filename: filename, Package: data}); err != nil {
		return nil, err
	}
	return &skiff.PipelineManifest{ObjectMeta: core.ObjectMeta{Name: "m", Namespace: namespace}, PipelineSpec: json.RawMessage(`{"pipelineInfo":{"name":"p"}}`)}, nil
}

func (r *rooms) Retry(ctx context.Context, namespace, name string) error {
	run, err := store.GetAs[*skiff.Run](ctx, r.store, store.Key{Kind: "runs.skiff.dev", Namespace: namespace, Name: name})
	if err == nil && run.Status.State != skiff.StateFailed {
		err = store.ErrConflict
	}
	return err
}

func (r *rooms) Trigger(ctx context.Context, namespace, name string) (*skiff.Run, error) {
	found, err := store.GetAs[*skiff.RecurringRun](ctx, r.store, store.Key{Kind: "recurringruns.skiff.dev", Namespace: namespace, Name: name})
	if err != nil {
		return nil, err
	}
	return &skiff.Run{ObjectMeta: core.ObjectMeta{Name: "made", Namespace: namespace}, Spec: skiff.RunSpec{Manifest: "m", RecurringRun: found.Name, DisplayName: found.Spec.DisplayName + "-1"}}, nil
}

func (r *rooms) PodLogs(ctx context.Context, _, name string, opts server.LogOptions, w io.Writer) error {
	text, known := r.logs[name]
	if !known {
		return fmt.Errorf("pod %s: %w", name, store.ErrNotFound)
	}
	if opts.TailLines >= 0 {
		lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
		text = strings.Join(lines[max(0, len(lines)-int(opts.TailLines)):], "") + "\n"
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	if opts.Follow && r.gate != nil {
		select {
		case <-r.gate:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (r *rooms) Usage(context.Context) ([]view.Usage, error) {
	return []view.Usage{{Namespace: "default", Name: "p1", MemoryBytes: 1 << 20}}, nil
}

func (r *rooms) Node(context.Context) (*view.Node, error) {
	return &view.Node{Version: "test", Runtime: "memory", Fake: true}, nil
}

func (r *rooms) OpenArtifact(_ context.Context, a *skiff.Artifact) (*server.Content, error) {
	if a.Spec.URI == "minio://gone" {
		return nil, errors.New("the file is gone")
	}
	return &server.Content{ReadCloser: io.NopCloser(strings.NewReader("<script>model</script>")), Size: 22}, nil
}

func (r *rooms) Purge(_ context.Context, namespace string, retention *skiff.Retention, dryRun bool) (*skiff.PurgeReport, error) {
	report := &skiff.PurgeReport{Namespace: namespace, DryRun: dryRun, Items: []skiff.PurgeItem{}}
	if retention != nil {
		report.Retention = retention.String()
	}
	return report, nil
}

// kinds are declared here as the engines declare them, since the server may not
// know the engines.
func kinds() []store.Kind {
	byRun := func(run func(core.Object) string) store.Index {
		return store.Index{Name: "run", Values: func(o core.Object) []string { return []string{run(o)} }}
	}
	byID := func(id func(core.Object) string) store.Index {
		return store.Index{Name: "id", Values: func(o core.Object) []string { return []string{id(o)} }}
	}
	name := func(o core.Object) string { return o.Metadata().Name }
	uid := func(o core.Object) string { return o.Metadata().UID }
	none := func(name string) store.Index {
		return store.Index{Name: name, Values: func(core.Object) []string { return nil }}
	}
	return []store.Kind{
		{Name: "experiments.skiff.dev", New: func() core.Object { return &skiff.Experiment{} }, Indexes: []store.Index{byID(name), none("name")}},
		{Name: "recurringruns.skiff.dev", New: func() core.Object { return &skiff.RecurringRun{} }, Indexes: []store.Index{byID(name), none("experiment"), none("enabled")}},
		{Name: "pipelines.pipelines.kubeflow.org", New: func() core.Object { return &kfp.Pipeline{} }, Indexes: []store.Index{byID(uid)}},
		{Name: "pipelineversions.pipelines.kubeflow.org", New: func() core.Object { return &kfp.PipelineVersion{} }, Indexes: []store.Index{byID(uid), {Name: "pipeline", Values: func(o core.Object) []string {
			return []string{o.(*kfp.PipelineVersion).Spec.PipelineName + "\x00"}
		}}}},
		{Name: "pipelinemanifests.skiff.dev", New: func() core.Object { return &skiff.PipelineManifest{} }},
		{Name: "runs.skiff.dev", New: func() core.Object { return &skiff.Run{} }, Indexes: []store.Index{
			{Name: "created", Values: func(o core.Object) []string {
				return []string{store.TimeValue(o.Metadata().CreationTimestamp, true)}
			}},
			{Name: "active", Values: func(o core.Object) []string {
				if o.(*skiff.Run).Status.State.Terminal() {
					return nil
				}
				return []string{"active"}
			}},
			byID(name), none("experiment"), none("state"), none("storage"), none("recurring"), none("name"),
		}},
		{Name: "tasks.skiff.dev", New: func() core.Object { return &skiff.Task{} },
			Indexes: []store.Index{byRun(func(o core.Object) string { return o.(*skiff.Task).Spec.Run })}},
		{Name: "artifacts.skiff.dev", New: func() core.Object { return &skiff.Artifact{} },
			Indexes: []store.Index{byRun(func(o core.Object) string { return o.(*skiff.Artifact).Spec.Run })}},
		{Name: "pods", New: func() core.Object { return &core.Pod{} },
			Indexes: []store.Index{byRun(func(o core.Object) string {
				return o.Metadata().Namespace + "/" + o.Metadata().Labels[core.LabelRun]
			})}},
		{Name: "secrets", New: func() core.Object { return &core.Secret{} }, Sealed: true},
		{Name: "persistentvolumeclaims", New: func() core.Object { return &core.PersistentVolumeClaim{} }, Indexes: []store.Index{
			{Name: "owner", Values: func(o core.Object) []string {
				var owners []string
				for _, owner := range o.Metadata().OwnerReferences {
					owners = append(owners, owner.Kind+"/"+owner.Name)
				}
				return owners
			}},
		}},
		{Name: "configmaps", New: func() core.Object { return &core.ConfigMap{} }},
	}
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	// Ages and durations in golden answers need a clock that stands.
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s, err := store.Open(t.Context(), store.Config{
		Path: filepath.Join(t.TempDir(), "store.db"), Kinds: kinds(), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rooms{store: s, logs: map[string]string{}}
	srv, err := server.New(server.Config{
		Store: s, Pipelines: r, Logs: r, Node: r, Artifacts: r, Pods: r, Portable: r, Retention: r, AdminToken: token, Peers: ports{},
		Backup:  s.Backup,
		Version: server.VersionInfo{Major: "1", Minor: "33", GitVersion: "test"},
		Now:     func() time.Time { return now.Add(90 * time.Second) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{Server: srv, store: s, rooms: r}
}

// put stores objects of a run: two tasks, a metrics artifact and a pod.
func (f *fixture) put(t *testing.T, name string, state skiff.State) {
	t.Helper()
	start := time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
	zero := int32(0)
	task := func(path, pod string, taskState skiff.State) *skiff.Task {
		return &skiff.Task{ObjectMeta: core.ObjectMeta{Name: name + "-" + path, Namespace: "default", Labels: map[string]string{core.LabelRun: name}},
			Spec:   skiff.TaskSpec{Run: name, Path: path, Key: path, Component: "comp-" + path, Type: skiff.TaskContainer},
			Status: skiff.TaskStatus{State: taskState, Attempts: 1, Pod: pod, ExitCode: &zero, StartedAt: start, FinishedAt: start.Add(2 * time.Second)}}
	}
	objects := []struct {
		kind string
		obj  core.Object
	}{
		{"runs.skiff.dev", &skiff.Run{ObjectMeta: core.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"team": "a"}},
			Spec: skiff.RunSpec{PipelineName: "train", DisplayName: "nightly", Manifest: "m"},
			Status: skiff.RunStatus{State: state, StartedAt: start, FinishedAt: start.Add(5 * time.Second),
				Outputs: map[string]json.RawMessage{"best": json.RawMessage(`0.5`)}, TaskCounts: map[skiff.State]int{skiff.StateSucceeded: 2}}}},
		{"tasks.skiff.dev", task("prepare", name+"-pod", skiff.StateSucceeded)},
		{"tasks.skiff.dev", task("train", "", skiff.StateSucceeded)},
		{"artifacts.skiff.dev", &skiff.Artifact{ObjectMeta: core.ObjectMeta{Name: name + "-metrics", Namespace: "default"},
			Spec: skiff.ArtifactSpec{DisplayName: "metrics", SchemaTitle: "system.Metrics", URI: "minio://b/metrics", Run: name, Task: name + "-train",
				Metadata: map[string]json.RawMessage{"accuracy": json.RawMessage(`0.9`), "note": json.RawMessage(`"7"`), "loss": json.RawMessage(`1e-3`)}}}},
		{"pods", &core.Pod{ObjectMeta: core.ObjectMeta{Name: name + "-pod", Namespace: "default", Labels: map[string]string{core.LabelRun: name}},
			Spec:   core.PodSpec{Containers: []core.Container{{Name: "main", Image: "python:3.11"}}},
			Status: core.PodStatus{Phase: core.PodSucceeded, Claim: &core.Claim{GPUs: []string{"GPU-1"}}}}},
	}
	for _, o := range objects {
		if _, err := f.store.Commit(t.Context(), store.Op{Verb: store.Create, Kind: o.kind, Object: o.obj}); err != nil {
			t.Fatal(err)
		}
	}
	f.rooms.logs[name+"-pod"] = "one\ntwo\nthree\n"
}

// caller is who sends a request.
type caller struct {
	name   string
	change func(*http.Request)
}

func bearer(text string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+text) }
}

// ports plays the kernel's list of sockets: callers by the port that they come
// from. The list itself is tested where it is read.
type ports struct{}

const (
	portOfUser = iota + 4000
	portOfGuest
	portOfStranger
)

func (ports) Identify(_, client netip.AddrPort) (string, error) {
	switch client.Port() {
	case portOfUser:
		return "admin", nil
	case portOfGuest:
		return "guest", nil
	}
	return "", errors.New("the connection belongs to another user")
}

// connFrom has only addresses.
type connFrom struct {
	net.Conn
	port int
}

func (connFrom) LocalAddr() net.Addr    { return &net.TCPAddr{IP: net.IPv6loopback, Port: 7433} }
func (c connFrom) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv6loopback, Port: c.port} }

// from makes a request one that came on a connection from a port.
func (f *fixture) from(port int) func(*http.Request) {
	return func(r *http.Request) { *r = *r.WithContext(f.ConnContext(r.Context(), connFrom{port: port})) }
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func both(first, second func(*http.Request)) func(*http.Request) {
	return func(r *http.Request) { first(r); second(r) }
}

// do sends one request the way net/http would deliver it.
func (f *fixture) do(method, path string, body io.Reader, change func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, "http://127.0.0.1:7433"+path, body)
	if change != nil {
		change(req)
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, req)
	return w
}
