package kfpapi_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/recurring"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/auth"
	"github.com/skiff-ml/skiff/store"
)

// recorder notes what the authorizer is asked, and allows it in one namespace
// alone.
type recorder struct {
	mu      sync.Mutex
	asked   []string
	allowed string
}

func (r *recorder) Allowed(a auth.Attributes) (bool, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	where := a.Namespace
	if a.Name != "" {
		where += "/" + a.Name
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	r.asked = append(r.asked, a.Verb+" "+resource+" "+where)
	return r.allowed == "everywhere" || (a.Namespace != "" && a.Namespace == r.allowed), "no role allows it"
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

// TestTheAuthorizerIsAsked: each request of the API asks about the object, in the
// namespace that it is in, and where the answer is no neither tells nor does
// anything. Every route has a row.
func TestTheAuthorizerIsAsked(t *testing.T) {
	r := &recorder{allowed: "everywhere"}
	a := newAPI(t, func(cfg *server.Config) { cfg.Authorizer = r })
	const base = "/apis/v2beta1"
	spec := `{"pipelineInfo":{"name":"bare"},"deploymentSpec":{"executors":{"e":{"container":{"image":"busybox","command":["true"]}}}},` +
		`"components":{"c":{"executorLabel":"e"}},"root":{"dag":{"tasks":{"t":{"componentRef":{"name":"c"},"taskInfo":{"name":"t"}}}}},` +
		`"schemaVersion":"2.1.0","sdkVersion":"kfp-2.17.0"}`
	a.keep(t, pipeline.Experiments, &skiff.Experiment{ObjectMeta: core.ObjectMeta{Name: "e1", Namespace: "team"}, Spec: skiff.ExperimentSpec{DisplayName: "e"}})
	a.keep(t, pipeline.Runs, &skiff.Run{ObjectMeta: core.ObjectMeta{Name: "r1", Namespace: "team"}, Spec: skiff.RunSpec{DisplayName: "r", Experiment: "e1"},
		Status: skiff.RunStatus{State: skiff.StateFailed}})
	a.keep(t, pipeline.Tasks, &skiff.Task{ObjectMeta: core.ObjectMeta{Name: "t1", Namespace: "team"}, Spec: skiff.TaskSpec{Run: "r1", Path: "t", Key: "t"},
		Status: skiff.TaskStatus{State: skiff.StateSucceeded, Pod: "p1", OutputArtifacts: map[string][]string{"out": {"a1"}}}})
	a.keep(t, pipeline.Artifacts, &skiff.Artifact{ObjectMeta: core.ObjectMeta{Name: "a1", Namespace: "team"}, Spec: skiff.ArtifactSpec{Run: "r1", Task: "t1", Output: "out"}})
	a.keep(t, recurring.KindName, &skiff.RecurringRun{ObjectMeta: core.ObjectMeta{Name: "rr1", Namespace: "team"},
		Spec: skiff.RecurringRunSpec{DisplayName: "rr", Experiment: "e1", Schedule: skiff.Schedule{IntervalSeconds: 60}, MaxConcurrency: 1, Manifest: "m"}})
	a.rooms.logs["p1"], a.rooms.contents["a1"] = "log\n", "secret"
	var p struct {
		ID string `json:"pipeline_id"`
	}
	var versions struct {
		Versions []struct {
			ID string `json:"pipeline_version_id"`
		} `json:"pipeline_versions"`
	}
	tiny := readTestdata(t, "tiny.yaml")
	decode(t, a.do("POST", base+"/pipelines/upload?name=tiny&namespace=team", tiny, "tiny.yaml"), &p)
	decode(t, a.do("GET", base+"/pipelines/"+p.ID+"/versions", nil, ""), &versions)
	v := versions.Versions[0].ID
	stored, _, err := store.ListAs[core.Object](t.Context(), a.store, store.ListOptions{Kind: pipeline.Versions})
	if err != nil || len(stored) != 1 {
		t.Fatalf("versions: %v, %v", stored, err)
	}
	version := stored[0].Metadata().Name
	rows := []struct{ method, path, body, upload, want string }{
		{"GET", "/healthz", "", "", "get healthz "},
		{"GET", "/auth", "", "", "get auth "},
		{"GET", "/filters", "", "", "get filters "},
		{"POST", "/visualizations/team", "{}", "", "create visualizations "},
		{"POST", "/workflows", "{}", "", "create workflows "},
		{"POST", "/scheduledworkflows", "{}", "", "create scheduledworkflows "},
		{"POST", "/pipelines/upload?namespace=team&name=u", "@", "tiny.yaml", "create pipelines team"},
		{"POST", "/pipelines/upload_version?name=u&pipelineid=" + p.ID, "@", "tiny.yaml", "create pipelineversions team"},
		{"GET", "/pipelines?namespace=team", "", "", "list pipelines team"},
		{"POST", "/pipelines", `{"display_name":"c","namespace":"team"}`, "", "create pipelines team"},
		{"POST", "/pipelines/create", `{"pipeline":{"display_name":"b","namespace":"team"},"pipeline_version":{"pipeline_spec":` + spec + `}}`, "", "create pipelines team"},
		{"GET", "/pipelines/" + p.ID, "", "", "get pipelines team/tiny"},
		{"GET", "/pipelines/names/tiny?namespace=team", "", "", "get pipelines team/tiny"},
		{"PATCH", "/pipelines/" + p.ID, `{"description":"x"}`, "", "patch pipelines team/tiny"},
		{"GET", "/pipelines/" + p.ID + "/versions", "", "", "list pipelineversions team"},
		{"POST", "/pipelines/" + p.ID + "/versions", `{"display_name":"n","pipeline_spec":` + spec + `}`, "", "create pipelineversions team"},
		{"GET", "/pipelines/" + p.ID + "/versions/" + v, "", "", "get pipelineversions team/" + version},
		{"PATCH", "/pipelines/" + p.ID + "/versions/" + v, `{"description":"x"}`, "", "patch pipelineversions team/" + version},
		{"GET", "/experiments?namespace=team", "", "", "list experiments team"},
		{"POST", "/experiments", `{"display_name":"n","namespace":"team"}`, "", "create experiments team"},
		{"GET", "/experiments/e1", "", "", "get experiments team/e1"},
		{"POST", "/experiments/e1:unarchive", "", "", "update experiments team/e1"},
		{"GET", "/runs?experiment_id=e1", "", "", "list runs team"},
		{"GET", "/runs?namespace=team", "", "", "list runs team"},
		{"POST", "/runs", `{"display_name":"n","experiment_id":"e1","pipeline_spec":` + spec + `}`, "", "create runs team"},
		{"POST", "/runs", `{"display_name":"n","experiment_id":"e1","pipeline_version_reference":{"pipeline_id":"` + p.ID + `","pipeline_version_id":"` + v + `"}}`, "",
			"create runs team; get pipelineversions team/" + version},
		{"GET", "/runs/r1", "", "", "get runs team/r1"},
		{"POST", "/runs/r1:archive", "", "", "update runs team/r1"},
		{"GET", "/recurringruns?experiment_id=e1", "", "", "list recurringruns team"},
		{"POST", "/recurringruns", `{"display_name":"n","experiment_id":"e1","mode":"ENABLE","max_concurrency":1,"trigger":{"periodic_schedule":{"interval_second":60}},"pipeline_spec":` + spec + `}`, "", "create recurringruns team"},
		{"GET", "/recurringruns/rr1", "", "", "get recurringruns team/rr1"},
		{"PATCH", "/recurringruns/rr1", `{"description":"x","pipeline_spec":` + spec + `}`, "", "patch recurringruns team/rr1; patch recurringruns team"},
		{"POST", "/recurringruns/rr1:disable", "", "", "update recurringruns team/rr1"},
		{"GET", "/tasks?run_id=r1", "", "", "list tasks team"},
		{"GET", "/tasks/t1?namespace=team", "", "", "get tasks team/t1"},
		{"POST", "/tasks", "{}", "", "create tasks "},
		{"PATCH", "/tasks/t1", "{}", "", "patch tasks "},
		{"GET", "/artifacts?namespace=team", "", "", "list artifacts team"},
		{"POST", "/artifacts", "{}", "", "create artifacts "},
		{"GET", "/artifacts/a1?namespace=team", "", "", "get artifacts team/a1"},
		{"GET", "/artifact_tasks?run_ids=r1", "", "", "list artifacts team"},
		{"POST", "/artifact_tasks", "{}", "", "create artifacts "},
		{"GET", "/runs/r1/nodes/t1/artifacts/out:read", "", "", "get artifacts team"},
		{"GET", "/runs/r1/nodes/t1/log", "", "", "get runs/log team/r1"},
		{"GET", "/nowhere", "", "", "get unknown "}, {"POST", "/nowhere", "", "", "get unknown "}, {"PUT", "/nowhere", "", "", "get unknown "},
		{"PATCH", "/nowhere", "", "", "get unknown "}, {"DELETE", "/nowhere", "", "", "get unknown "},
		// What goes, last.
		{"DELETE", "/recurringruns/rr1", "", "", "delete recurringruns team/rr1"},
		{"DELETE", "/runs/r1", "", "", "delete runs team/r1"},
		{"DELETE", "/experiments/e1", "", "", "delete experiments team/e1"},
		{"DELETE", "/pipelines/" + p.ID + "/versions/" + v, "", "", "delete pipelineversions team/" + version},
		{"DELETE", "/pipelines/" + p.ID + "?cascade=true", "", "", "delete pipelines team/tiny"},
	}
	r.take()
	mux := http.NewServeMux()
	for _, route := range a.Routes() {
		mux.Handle(route.Pattern(), http.NotFoundHandler())
	}
	tried := map[string]bool{}
	for _, row := range rows {
		t.Run(row.method+" "+row.path, func(t *testing.T) {
			body := []byte(row.body)
			if row.upload != "" {
				body = tiny
			}
			req, err := http.NewRequestWithContext(t.Context(), row.method, "http://x"+base+row.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, pattern := mux.Handler(req)
			tried[pattern] = true
			// First as somebody who has a role elsewhere alone.
			r.allowed = "elsewhere"
			before := a.store.Revision()
			w := a.do(row.method, base+row.path, body, row.upload)
			if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"code":7`) || strings.Contains(w.Body.String(), "team") {
				t.Errorf("elsewhere: %d %s", w.Code, w.Body)
			}
			if after := a.store.Revision(); after != before {
				t.Error("elsewhere: the store was changed")
			}
			r.take()
			r.allowed = "everywhere"
			w = a.do(row.method, base+row.path, body, row.upload)
			if w.Code == http.StatusForbidden || w.Code >= 500 && w.Code != http.StatusNotImplemented || w.Code == http.StatusBadRequest {
				t.Errorf("everywhere: %d %s", w.Code, w.Body)
			}
			if diff := gocmp.Diff(row.want, strings.Join(slices.Compact(r.take()), "; ")); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
	for _, route := range a.Routes() {
		if strings.HasPrefix(route.Path, base) && !tried[route.Pattern()] {
			t.Errorf("%s has no row", route.Pattern())
		}
	}
}

// TestUnknownIDs: that nothing has an id is told to those alone who may see
// everything.
func TestUnknownIDs(t *testing.T) {
	r := &recorder{}
	a := newAPI(t, func(cfg *server.Config) { cfg.Authorizer = r })
	for _, path := range []string{"/runs/none", "/experiments/none", "/pipelines/none", "/pipelines/none/versions/none", "/recurringruns/none",
		"/runs?experiment_id=none", "/tasks?run_id=none", "/runs/none/nodes/x/log"} {
		for allowed, want := range map[string]int{"team": http.StatusForbidden, "everywhere": http.StatusNotFound} {
			r.allowed = allowed
			if w := a.do("GET", "/apis/v2beta1"+path, nil, ""); w.Code != want {
				t.Errorf("%s, allowed %s: %d %s", path, allowed, w.Code, w.Body)
			}
		}
	}
}
