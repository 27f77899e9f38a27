package kfpapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestWire holds whole conversations to the golden files in testdata/wire: every
// request in them is sent, and the file is written anew from the answers. A file
// reads as
//
//	# a comment, kept
//	> POST /apis/v2beta1/experiments
//	> {"display_name":"e"}
//	200 {
//	  …the answer, indented…
//	}
//	= exp experiment_id
//
// where "= NAME MEMBER" takes a member of the answer for later: $NAME stands for
// it in requests and in answers. "> @FILE" uploads a file of testdata.
func TestWire(t *testing.T) {
	files, err := filepath.Glob("testdata/wire/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := &conversation{api: newAPI(t, nil), t: t, known: map[string]string{}}
			c.keepRun()
			got := c.hold(string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := gocmp.Diff(string(want), got); diff != "" {
				t.Errorf("the answers are others (-want +got); run with -update if they are right:\n%s", diff)
			}
		})
	}
}

type conversation struct {
	*api
	t     *testing.T
	known map[string]string // values by their names
	out   strings.Builder
}

// keepRun stores a run that has ended, with what belongs to it.
func (c *conversation) keepRun() {
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	code := int32(1)
	run := &skiff.Run{
		ObjectMeta: core.ObjectMeta{Name: "run-1", Namespace: "default", CreationTimestamp: now},
		Spec: skiff.RunSpec{DisplayName: "nightly <1>", Description: "d", PipelineName: "hello", Manifest: "m1", ServiceAccount: "sa",
			Parameters: map[string]json.RawMessage{"lr": json.RawMessage(`0.5`), "name": json.RawMessage(`"x"`)}, PipelineRoot: "minio://b/root"},
		Status: skiff.RunStatus{State: skiff.StateFailed, Message: "train failed", StartedAt: at(1), FinishedAt: at(9),
			Metrics: map[string]json.RawMessage{"acc": json.RawMessage(`0.75`)},
			History: []skiff.StateChange{{State: skiff.StatePending, At: now}, {State: skiff.StateRunning, At: at(1)}, {State: skiff.StateFailed, At: at(9), Message: "train failed"}}},
	}
	task := func(name, path, parent string, kind skiff.TaskType) *skiff.Task {
		return &skiff.Task{ObjectMeta: core.ObjectMeta{Name: "run-1." + name, Namespace: "default", CreationTimestamp: now},
			Spec: skiff.TaskSpec{Run: "run-1", Path: path, Key: name, DisplayName: name, Component: "comp-" + name, Type: kind, Parent: parent}}
	}
	prepare := task("prepare", "prepare", "", skiff.TaskContainer)
	prepare.Status = skiff.TaskStatus{State: skiff.StateSucceeded, Pod: "run-1-prepare", StartedAt: at(1), FinishedAt: at(3), OutputArtifacts: map[string][]string{"data": {"a1"}}}
	loop := task("loop", "loop", "", skiff.TaskDAG)
	loop.Status = skiff.TaskStatus{State: skiff.StateFailed, Message: "train failed", StartedAt: at(3), FinishedAt: at(9)}
	train := task("train", "loop/train", "run-1.loop", skiff.TaskContainer)
	train.Status = skiff.TaskStatus{State: skiff.StateFailed, Message: "exit code 1", Pod: "run-1-train", ExitCode: &code, StartedAt: at(4), FinishedAt: at(9),
		InputArtifacts: map[string][]string{"data": {"a1"}}, OutputArtifacts: map[string][]string{"metrics": {"a2"}}}
	waits := task("deploy", "deploy", "", skiff.TaskContainer)
	waits.Status = skiff.TaskStatus{State: skiff.StateSkipped}
	cached := task("cached", "cached", "", skiff.TaskContainer)
	cached.Status = skiff.TaskStatus{State: skiff.StateSucceeded, Cached: true, CachedFrom: "run-0.cached", StartedAt: at(2), FinishedAt: at(2)}
	c.keep(c.t, pipeline.Manifests, &skiff.PipelineManifest{ObjectMeta: core.ObjectMeta{Name: "m1", Namespace: "default"},
		PipelineSpec: json.RawMessage(`{"pipelineInfo":{"name":"hello"},"schemaVersion":"2.1.0"}`), PlatformSpec: json.RawMessage(`{"platforms":{"kubernetes":{}}}`)})
	c.keep(c.t, pipeline.Runs, run)
	c.keep(c.t, pipeline.Tasks, prepare, loop, train, waits, cached)
	c.keep(c.t, pipeline.Artifacts,
		&skiff.Artifact{ObjectMeta: core.ObjectMeta{Name: "a1", Namespace: "default", CreationTimestamp: at(3)},
			Spec: skiff.ArtifactSpec{DisplayName: "data", SchemaTitle: "system.Dataset", URI: "minio://b/data", Run: "run-1", Task: "run-1.prepare", Output: "data"}},
		&skiff.Artifact{ObjectMeta: core.ObjectMeta{Name: "a2", Namespace: "default", CreationTimestamp: at(9)},
			Spec: skiff.ArtifactSpec{DisplayName: "metrics", SchemaTitle: "system.Metrics", URI: "minio://b/metrics", Run: "run-1", Task: "run-1.train", Output: "metrics",
				Metadata: map[string]json.RawMessage{"acc": json.RawMessage(`0.75`)}}})
	c.keep(c.t, "pods", &core.Pod{ObjectMeta: core.ObjectMeta{Name: "run-1-train-0", Namespace: "default", Labels: map[string]string{core.LabelRun: "run-1"}}})
	c.rooms.logs["run-1-prepare"], c.rooms.logs["run-1-train-0"] = "prepared\n", "first attempt\n"
	c.rooms.contents["a1"] = "rows\n"
}

// hold sends the requests of a file and returns the file as it should be.
func (c *conversation) hold(file string) string {
	var request []string
	for line := range strings.SplitSeq(strings.TrimRight(file, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "#") || line == "":
			c.send(&request)
			c.out.WriteString(line + "\n")
		case strings.HasPrefix(line, "> "):
			if requestLine.MatchString(line) {
				c.send(&request)
			}
			c.out.WriteString(line + "\n")
			request = append(request, line[2:])
		case strings.HasPrefix(line, "= "):
			c.send(&request)
			c.out.WriteString(line + "\n")
			c.take(strings.Fields(line[2:]))
		default:
			// An answer of before.
			c.send(&request)
		}
	}
	c.send(&request)
	return c.out.String()
}

var (
	requestLine = regexp.MustCompile(`^> (GET|POST|PATCH|DELETE|PUT) `)
	variable    = regexp.MustCompile(`\$\w+`)
	uuids       = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
)

// send sends what was read so far, if anything, and writes the answer.
func (c *conversation) send(request *[]string) {
	if len(*request) == 0 {
		return
	}
	for i := range *request {
		(*request)[i] = variable.ReplaceAllStringFunc((*request)[i], func(name string) string { return c.known[name[1:]] })
	}
	method, path, _ := strings.Cut((*request)[0], " ")
	body, upload := strings.Join((*request)[1:], "\n"), ""
	if name, is := strings.CutPrefix(body, "@"); is {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			c.t.Fatal(err)
		}
		body, upload = string(data), name
	}
	w := c.do(method, path, []byte(body), upload)
	c.known["last"] = w.Body.String()
	answer := w.Body.String()
	var indented bytes.Buffer
	if json.Valid(w.Body.Bytes()) {
		var whole any
		decoder := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
		decoder.UseNumber()
		if err := decoder.Decode(&whole); err != nil {
			c.t.Fatal(err)
		}
		encoder := json.NewEncoder(&indented)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(whole); err != nil { // members sorted: their order says nothing
			c.t.Fatal(err)
		}
		answer = indented.String()
	}
	for name, value := range c.known {
		if name != "last" && value != "" {
			answer = strings.ReplaceAll(answer, value, "$"+name)
		}
	}
	answer = uuids.ReplaceAllString(answer, "UUID")
	_, _ = fmt.Fprintf(&c.out, "%d %s\n", w.Code, strings.TrimRight(answer, "\n"))
	*request = nil
}

// take names a member of the last answer, whose path has dots.
func (c *conversation) take(words []string) {
	if len(words) != 2 {
		c.t.Fatalf("= %v: want a name and a member", words)
	}
	var at any
	if err := json.Unmarshal([]byte(c.known["last"]), &at); err != nil {
		c.t.Fatalf("= %v: %v", words, err)
	}
	for part := range strings.SplitSeq(words[1], ".") {
		if list, is := at.([]any); is && len(list) > 0 {
			at = list[0]
		}
		if members, is := at.(map[string]any); is {
			at = members[part]
		}
	}
	value, is := at.(string)
	if !is || value == "" {
		c.t.Fatalf("= %v: the answer has no such text: %.300s", words, c.known["last"])
	}
	c.known[words[0]] = value
}
