package server_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
)

const (
	tableAccept = "application/json;as=Table;v=v1;g=meta.k8s.io"
	runsPath    = "/apis/skiff.dev/v1alpha1/namespaces/default/runs"
	tasksPath   = "/apis/skiff.dev/v1alpha1/namespaces/default/tasks"
	podsPath    = "/api/v1/namespaces/default/pods"
)

func TestScenarios(t *testing.T) {
	merge := func(r *http.Request) { r.Header.Set("Content-Type", "application/merge-patch+json") }
	jsonBody := func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }
	yamlBody := func(r *http.Request) { r.Header.Set("Content-Type", "application/yaml") }
	pkg := func(text string) string {
		return fmt.Sprintf(`{"package":%q,"filename":"p.yaml","displayName":"d"}`, base64.StdEncoding.EncodeToString([]byte(text)))
	}
	for _, tc := range []struct {
		name, method, path, body string
		header                   func(*http.Request)
		want                     int
		contains, lacks          []string
	}{
		{name: "ready without a token", method: "GET", path: "/readyz", want: 200, contains: []string{"ok"}},
		{name: "version", method: "GET", path: "/version", want: 200, contains: []string{`"gitVersion":"test"`}},
		{name: "discovery", method: "GET", path: "/apis/skiff.dev/v1alpha1", want: 200, contains: []string{`"name":"runs"`, `"name":"artifacts"`, `"verbs":["get","list","watch","delete","patch"]`}},
		{name: "groups", method: "GET", path: "/apis", want: 200, contains: []string{`"groupVersion":"skiff.dev/v1alpha1"`}},
		{name: "list runs", method: "GET", path: runsPath, want: 200, contains: []string{`"kind":"RunList"`, `"name":"r1"`, `"name":"r2"`, `"kind":"Run"`}},
		{name: "list in another namespace", method: "GET", path: "/apis/skiff.dev/v1alpha1/namespaces/other/runs", want: 200, contains: []string{`"items":[]`}, lacks: []string{"r1"}},
		{name: "list in all namespaces", method: "GET", path: "/apis/skiff.dev/v1alpha1/runs", want: 200, contains: []string{"r1", "r2"}},
		{name: "first page", method: "GET", path: runsPath + "?limit=1", want: 200, contains: []string{`"continue":"`}},
		{name: "bad limit", method: "GET", path: runsPath + "?limit=-1", want: 400, contains: []string{"BadRequest"}},
		{name: "bad continue", method: "GET", path: runsPath + "?continue=zzz", want: 400},
		{name: "label selector", method: "GET", path: runsPath + "?labelSelector=team%3Db", want: 200, contains: []string{`"items":[]`}},
		{name: "set selector", method: "GET", path: runsPath + "?labelSelector=team%20in%20(a,b),!gone", want: 200, contains: []string{"r1"}},
		{name: "bad selector", method: "GET", path: runsPath + "?labelSelector=a%20near%20b", want: 400},
		{name: "active runs", method: "GET", path: runsPath + "?fieldSelector=status.progress%3Dactive", want: 200, contains: []string{"r2"}, lacks: []string{`"name":"r1"`}},
		{name: "ended runs", method: "GET", path: runsPath + "?fieldSelector=status.progress%3Dended", want: 200, contains: []string{`"name":"r1"`}, lacks: []string{`"name":"r2"`}},
		{name: "unknown field", method: "GET", path: runsPath + "?fieldSelector=spec.secret%3D1", want: 400},
		{name: "tasks of a run", method: "GET", path: tasksPath + "?fieldSelector=spec.run%3Dr1", want: 200, contains: []string{"r1-train"}, lacks: []string{"r2-train"}},
		{name: "pods of a run", method: "GET", path: podsPath + "?labelSelector=skiff.dev/run%3Dr2", want: 200, contains: []string{"r2-pod"}, lacks: []string{"r1-pod"}},
		{name: "get run", method: "GET", path: runsPath + "/r1", want: 200, contains: []string{`"kind":"Run"`, `"apiVersion":"skiff.dev/v1alpha1"`}},
		{name: "get nothing", method: "GET", path: runsPath + "/nope", want: 404, contains: []string{`runs.skiff.dev \"nope\" not found`, `"kind":"Status"`, `"reason":"NotFound"`}},
		{name: "no such path", method: "GET", path: "/apis/none", want: 404, contains: []string{`"kind":"Status"`}},
		{name: "wrong method", method: "PUT", path: runsPath + "/r1", want: 405, contains: []string{"DELETE, GET, PATCH"}},
		{name: "tasks cannot be changed", method: "PATCH", path: tasksPath + "/r1-train", body: `{}`, header: merge, want: 405},
		{name: "cancel", method: "PATCH", path: runsPath + "/r2", body: `{"spec":{"cancel":true}}`, header: merge, want: 200, contains: []string{`"cancel":true`}},
		{name: "cancel what has ended", method: "PATCH", path: runsPath + "/r1", body: `{"spec":{"cancel":true}}`, header: merge, want: 409, contains: []string{"already ended"}},
		{name: "label", method: "PATCH", path: runsPath + "/r1", body: `{"metadata":{"labels":{"x":"y","team":null}}}`, header: merge, want: 200, contains: []string{`"x":"y"`}, lacks: []string{"team"}},
		{name: "patch the status", method: "PATCH", path: runsPath + "/r1", body: `{"status":{"state":"FAILED"}}`, header: merge, want: 422, contains: []string{"cannot be set"}},
		{name: "patch the spec", method: "PATCH", path: runsPath + "/r1", body: `{"spec":{"pipelineRoot":"file:///etc"}}`, header: merge, want: 422},
		{name: "patch the uid", method: "PATCH", path: runsPath + "/r1", body: `{"metadata":{"uid":"1"}}`, header: merge, want: 422},
		{name: "patch owners", method: "PATCH", path: runsPath + "/r1", body: `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"x","uid":"1"}]}}`, header: merge, want: 422},
		{name: "patch with an old revision", method: "PATCH", path: runsPath + "/r2", body: `{"metadata":{"resourceVersion":"1","labels":{"a":"b"}}}`, header: merge, want: 409, contains: []string{"Conflict"}},
		{name: "patch that is no object", method: "PATCH", path: runsPath + "/r1", body: `[]`, header: merge, want: 400},
		{name: "patch as text", method: "PATCH", path: runsPath + "/r1", body: `{}`, header: func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, want: 415},
		{name: "patch too large", method: "PATCH", path: runsPath + "/r1", body: `{"a":"` + strings.Repeat("x", 5<<20) + `"}`, header: merge, want: 413},
		{name: "stop a pod", method: "PATCH", path: podsPath + "/r1-pod", body: `{"spec":{"skiff":{"stop":true}}}`, header: merge, want: 200, contains: []string{`"stop":true`}},
		{name: "release a pod", method: "PATCH", path: podsPath + "/r1-pod", body: `{"spec":{"skiff":{"release":true}}}`, header: merge, want: 200, contains: []string{`"release":true`}},
		{name: "hold a pod", method: "PATCH", path: podsPath + "/r1-pod", body: `{"spec":{"skiff":{"holdOnFailureSeconds":9}}}`, header: merge, want: 422, contains: []string{"only spec.skiff.stop and spec.skiff.release can be set"}},
		{name: "give a pod another image", method: "PATCH", path: podsPath + "/r1-pod", body: `{"spec":{"containers":[{"name":"main","image":"evil"}]}}`, header: merge, want: 422},
		{name: "give a pod a GPU", method: "PATCH", path: podsPath + "/r1-pod", body: `{"status":{"claim":{"gpus":["GPU-2"]}}}`, header: merge, want: 422},
		{name: "delete what runs", method: "DELETE", path: runsPath + "/r2", want: 409, contains: []string{"skiff cancel r2"}},
		{name: "submit", method: "POST", path: runsPath + ":submit", body: pkg("good"), header: jsonBody, want: 201, contains: []string{`"name":"run-1"`, `"displayName":"d"`}},
		{name: "submit raw", method: "POST", path: runsPath + ":submit?filename=p.yaml&displayName=raw&disableCache=true&parameters=%7B%22n%22:1%7D", body: "good", header: yamlBody, want: 201},
		{name: "submit what is wrong", method: "POST", path: runsPath + ":submit", body: pkg("bad"), header: jsonBody, want: 422, contains: []string{`"field":"root.dag"`, `"hint":"add one"`, `"line":3`, `"object":"p.yaml"`}},
		{name: "only check", method: "POST", path: runsPath + ":submit?dryRun=All", body: pkg("good"), header: jsonBody, want: 200, contains: []string{"Success"}},
		{name: "only check what is wrong", method: "POST", path: runsPath + ":submit?dryRun=All", body: pkg("bad"), header: jsonBody, want: 422},
		{name: "submit nothing", method: "POST", path: runsPath + ":submit", header: jsonBody, want: 400},
		{name: "resume with nothing of its own", method: "POST", path: runsPath + ":submit", body: `{"resume":{"run":"r1","from":["train"]}}`, header: jsonBody, want: 201, contains: []string{`"name":"run-`}},
		{name: "submit no JSON", method: "POST", path: runsPath + ":submit", body: "{", header: jsonBody, want: 400},
		{name: "submit a form", method: "POST", path: runsPath + ":submit", body: "package=x", header: func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, want: 415},
		{name: "pod log", method: "GET", path: podsPath + "/r1-pod/log", want: 200, contains: []string{"one\ntwo\nthree\n"}},
		{name: "pod log tail", method: "GET", path: podsPath + "/r1-pod/log?tailLines=1", want: 200, contains: []string{"three\n"}, lacks: []string{"two"}},
		{name: "pod log of nothing", method: "GET", path: podsPath + "/nope/log", want: 404, contains: []string{`pods \"nope\" not found`}},
		{name: "bad tail", method: "GET", path: podsPath + "/r1-pod/log?tailLines=x", want: 400},
		{name: "task log", method: "GET", path: tasksPath + "/r1-prepare/log", want: 200, contains: []string{"one\ntwo\nthree\n"}},
		{name: "task log before a pod", method: "GET", path: tasksPath + "/r1-train/log", want: 200, lacks: []string{"one"}},
		{name: "task log of nothing", method: "GET", path: tasksPath + "/nope/log", want: 404},
		{name: "artifact content", method: "GET", path: "/apis/skiff.dev/v1alpha1/namespaces/default/artifacts/r1-metrics/content", want: 200, contains: []string{"<script>model</script>"}},
		{name: "node", method: "GET", path: "/apis/skiff.dev/v1alpha1/node", want: 200, contains: []string{`"fake":true`}},
		{name: "usage", method: "GET", path: "/apis/skiff.dev/v1alpha1/usage", want: 200, contains: []string{`"memory_bytes":1048576`}},
		{name: "backup", method: "GET", path: "/apis/skiff.dev/v1alpha1/backup", want: 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			f.put(t, "r1", skiff.StateSucceeded)
			f.put(t, "r2", skiff.StateRunning)
			w := f.do(tc.method, tc.path, strings.NewReader(tc.body), func(r *http.Request) {
				bearer(token)(r)
				if tc.header != nil {
					tc.header(r)
				}
			})
			if w.Code != tc.want {
				t.Fatalf("got %d, want %d: %.500s", w.Code, tc.want, w.Body)
			}
			for _, text := range tc.contains {
				if !strings.Contains(w.Body.String(), text) {
					t.Errorf("the answer lacks %s: %.500s", text, w.Body)
				}
			}
			for _, text := range tc.lacks {
				if strings.Contains(w.Body.String(), text) {
					t.Errorf("the answer holds %s: %.500s", text, w.Body)
				}
			}
			if tc.want >= 400 {
				var status kube.Status
				if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil || status.Code != tc.want || status.Status != "Failure" {
					t.Errorf("not a Status (%v): %s", err, w.Body)
				}
			}
		})
	}
}

func TestArtifactContentIsNoPage(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateSucceeded)
	w := f.do("GET", "/apis/skiff.dev/v1alpha1/namespaces/default/artifacts/r1-metrics/content", nil, bearer(token))
	header := w.Header()
	if header.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(header.Get("Content-Disposition"), "attachment") ||
		!strings.Contains(header.Get("Content-Security-Policy"), "sandbox") || header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers: %v", header)
	}
}

// TestPagesAreWhole walks a list by pages of one and finds every run once.
func TestPagesAreWhole(t *testing.T) {
	f := newFixture(t)
	want := map[string]bool{}
	for i := range 7 {
		name := fmt.Sprintf("r%d", i)
		f.put(t, name, skiff.StateSucceeded)
		want[name] = true
	}
	got := map[string]bool{}
	for token2, pages := "", 0; ; pages++ {
		w := f.do("GET", runsPath+"?limit=2&continue="+token2, nil, bearer(token))
		var list struct {
			Metadata kube.ListMeta
			Items    []skiff.Run
		}
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || pages > 10 {
			t.Fatalf("page %d: %v %s", pages, err, w.Body)
		}
		for _, run := range list.Items {
			if got[run.Name] {
				t.Errorf("%s came twice", run.Name)
			}
			got[run.Name] = true
		}
		if token2 = list.Metadata.Continue; token2 == "" {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDeleteTakesDependentsAlong(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateSucceeded)
	f.put(t, "r2", skiff.StateSucceeded)
	w := f.do("DELETE", runsPath+"/r1", nil, bearer(token))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Success") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, kind := range []string{"runs.skiff.dev", "tasks.skiff.dev", "pods"} {
		page, err := f.store.List(t.Context(), store.ListOptions{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		for _, obj := range page.Items {
			if strings.HasPrefix(obj.Metadata().Name, "r1") {
				t.Errorf("%s %s is left", kind, obj.Metadata().Name)
			}
		}
		if len(page.Items) == 0 {
			t.Errorf("%s of r2 are gone too", kind)
		}
	}
}

func TestSubmissionArrivesWhole(t *testing.T) {
	f := newFixture(t)
	body, err := json.Marshal(server.Submission{
		DisplayName: "d", Filename: "p.yaml", Package: []byte{0, 1, 0xff}, Parameters: map[string]json.RawMessage{"n": json.RawMessage(`1`)},
		Arguments: map[string]string{"k": "v"}, PipelineRoot: "minio://b/r", DisableCache: true, Verbatim: true, CheckImages: true,
		Priority: 7, Labels: map[string]string{"a": "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := f.do("POST", runsPath+":submit", bytes.NewReader(body), func(r *http.Request) {
		bearer(token)(r)
		r.Header.Set("Content-Type", "application/json")
	})
	if w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	var want server.Submission
	if err := json.Unmarshal(body, &want); err != nil {
		t.Fatal(err)
	}
	want.Namespace = "default"
	if diff := cmp.Diff([]server.Submission{want}, f.rooms.submitted); diff != "" {
		t.Error(diff)
	}
}

var update = flag.Bool("update", false, "write golden files")

// TestGolden compares what people and scripts see word for word.
func TestGolden(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateSucceeded)
	for name, path := range map[string]string{
		"runs": runsPath, "tasks": tasksPath, "pods": podsPath, "artifacts": "/apis/skiff.dev/v1alpha1/namespaces/default/artifacts",
		"document": runsPath + "/r1/document",
	} {
		t.Run(name, func(t *testing.T) {
			w := f.do("GET", path+"?includeObject=None", nil, func(r *http.Request) {
				bearer(token)(r)
				r.Header.Set("Accept", tableAccept)
			})
			var indented bytes.Buffer
			if err := json.Indent(&indented, w.Body.Bytes(), "", "  "); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, indented.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), indented.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRunDocument(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateSucceeded)
	w := f.do("GET", runsPath+"/r1/document", nil, bearer(token))
	var run view.Run
	if err := json.Unmarshal(w.Body.Bytes(), &run); err != nil {
		t.Fatal(err)
	}
	want := []view.Metric{
		{Task: "train", Artifact: "metrics", Name: "accuracy", Value: json.RawMessage("0.9")},
		{Task: "train", Artifact: "metrics", Name: "loss", Value: json.RawMessage("1e-3")},
	}
	if diff := cmp.Diff(want, run.Metrics); diff != "" {
		t.Error(diff)
	}
	if len(run.Tasks) != 2 || run.Tasks[0].Name != "prepare" || *run.Tasks[0].ExitCode != 0 {
		t.Errorf("tasks: %+v", run.Tasks)
	}
}

// stream opens a streaming request on a real connection.
func (f *fixture) stream(t *testing.T, path string) *bufio.Reader {
	t.Helper()
	ts := httptest.NewServer(f)
	t.Cleanup(ts.Close)
	req, err := http.NewRequestWithContext(withTimeout(t), http.MethodGet, ts.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	bearer(token)(req)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(res.Body)
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	return bufio.NewReader(res.Body)
}

type watchLine struct {
	Type   string
	Object struct {
		Kind     string
		Code     int
		Metadata core.ObjectMeta
	}
}

func next(t *testing.T, r *bufio.Reader) watchLine {
	t.Helper()
	text, err := r.ReadBytes('\n')
	if err != nil {
		t.Fatalf("read the watch: %v", err)
	}
	var line watchLine
	if err := json.Unmarshal(text, &line); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return line
}

func (f *fixture) label(t *testing.T, name, key, value string) {
	t.Helper()
	body := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, key, value)
	w := f.do("PATCH", runsPath+"/"+name, strings.NewReader(body), func(r *http.Request) {
		bearer(token)(r)
		r.Header.Set("Content-Type", "application/merge-patch+json")
	})
	if w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
}

func TestWatch(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateSucceeded)
	r := f.stream(t, runsPath+"?watch=true")
	expect := func(kind, name string) {
		t.Helper()
		if line := next(t, r); line.Type != kind || line.Object.Metadata.Name != name || line.Object.Kind != "Run" {
			t.Fatalf("got %+v, want %s %s", line, kind, name)
		}
	}
	expect("ADDED", "r1")
	f.put(t, "r2", skiff.StateSucceeded)
	expect("ADDED", "r2")
	f.label(t, "r1", "a", "b")
	expect("MODIFIED", "r1")
	if w := f.do("DELETE", runsPath+"/r2", nil, bearer(token)); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	expect("DELETED", "r2")
}

// TestWatchOfASelection: objects that come to match are added, those that cease
// to are deleted, and others are never seen; also for a client that listed
// before.
func TestWatchOfASelection(t *testing.T) {
	for _, fromList := range []bool{false, true} {
		t.Run(fmt.Sprintf("fromList=%v", fromList), func(t *testing.T) {
			f := newFixture(t)
			f.put(t, "r1", skiff.StateSucceeded)
			f.put(t, "other", skiff.StateSucceeded)
			f.label(t, "r1", "watched", "yes")
			path := runsPath + "?watch=true&labelSelector=watched%3Dyes"
			if fromList {
				w := f.do("GET", runsPath+"?labelSelector=watched%3Dyes", nil, bearer(token))
				var list struct{ Metadata kube.ListMeta }
				if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
					t.Fatal(err)
				}
				path += "&resourceVersion=" + list.Metadata.ResourceVersion
			}
			r := f.stream(t, path)
			if !fromList {
				if line := next(t, r); line.Type != "ADDED" || line.Object.Metadata.Name != "r1" {
					t.Fatalf("%+v", line)
				}
			}
			f.label(t, "other", "x", "y")
			f.label(t, "r1", "watched", "no")
			if line := next(t, r); line.Type != "DELETED" || line.Object.Metadata.Name != "r1" {
				t.Fatalf("%+v", line)
			}
			f.label(t, "r1", "x", "y")
			f.label(t, "other", "watched", "yes")
			if line := next(t, r); line.Type != "ADDED" || line.Object.Metadata.Name != "other" {
				t.Fatalf("%+v", line)
			}
		})
	}
}

func TestWatchEndsAtItsTimeout(t *testing.T) {
	f := newFixture(t)
	r := f.stream(t, runsPath+"?watch=True&timeoutSeconds=1")
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the end of the stream", err)
	}
}

func TestWatchFromTheFuture(t *testing.T) {
	f := newFixture(t)
	if w := f.do("GET", runsPath+"?watch=1&resourceVersion=abc", nil, bearer(token)); w.Code != http.StatusBadRequest {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestTaskLogFollowsRetries: the log of a task that has not begun is waited
// for, and goes on with the next attempt.
func TestTaskLogFollowsRetries(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateRunning)
	set := func(pod string, state skiff.State) {
		t.Helper()
		key := store.Key{Kind: "tasks.skiff.dev", Namespace: "default", Name: "r1-train"}
		obj, err := f.store.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		task := obj.(*skiff.Task)
		task.Status.Pod, task.Status.State = pod, state
		if _, err := f.store.Commit(t.Context(), store.Op{Verb: store.Update, Kind: key.Kind, Object: task}); err != nil {
			t.Fatal(err)
		}
	}
	set("", skiff.StatePending)
	f.rooms.logs["first"], f.rooms.logs["second"] = "attempt 1\n", "attempt 2\n"
	r := f.stream(t, tasksPath+"/r1-train/log?follow=true")
	set("first", skiff.StateRunning)
	if text, err := r.ReadString('\n'); err != nil || text != "attempt 1\n" {
		t.Fatalf("%q %v", text, err)
	}
	set("second", skiff.StateSucceeded)
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "attempt 2\n" {
		t.Fatalf("%q %v", rest, err)
	}
}
