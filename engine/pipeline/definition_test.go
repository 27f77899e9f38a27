package pipeline

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

// TestDiffers: one change, and what is said of it.
func TestDiffers(t *testing.T) {
	base := func() *definition {
		return &definition{
			Image: "a:1", Digest: "sha256:1", Command: []string{"run"}, Args: []string{"x"}, Env: []kfp.EnvVar{{Name: "A", Value: "b"}},
			Parameters:   map[string]json.RawMessage{"lr": json.RawMessage(`0.1`), "layers": json.RawMessage(`[1, 2]`)},
			Artifacts:    map[string][]string{"data": {"sha256:d"}},
			OutputParams: map[string]string{"out": "STRING"}, OutputArtifacts: map[string]string{"model": "system.Model"},
			Platform: json.RawMessage(`{}`), Named: map[string]json.RawMessage{".pvcMount[0]": json.RawMessage(`"vol"`)},
		}
	}
	for _, test := range []struct {
		name   string
		change func(*definition)
		want   string
	}{
		{"nothing", func(*definition) {}, ""},
		{"spelling", func(d *definition) { d.Parameters["layers"] = json.RawMessage(`[1,2]`) }, ""},
		{"unknown digest", func(d *definition) { d.Digest = "" }, ""},
		{"digest", func(d *definition) { d.Digest = "sha256:2" }, "image digest differs from run r's"},
		{"image", func(d *definition) { d.Image = "a:2" }, "image differs from run r's (a:2, there a:1)"},
		{"args", func(d *definition) { d.Args = nil }, "command differs from run r's"},
		{"env", func(d *definition) { d.Env[0].Value = "c" }, "environment differs from run r's"},
		{"parameter", func(d *definition) { d.Parameters["lr"] = json.RawMessage(`0.2`) }, "parameter lr differs from run r's (0.2, there 0.1)"},
		{"no parameter", func(d *definition) { delete(d.Parameters, "lr") }, "parameter lr differs from run r's (none, there 0.1)"},
		{"null", func(d *definition) { d.Parameters["new"] = json.RawMessage(`null`) }, "parameter new differs from run r's (null, there none)"},
		{"long", func(d *definition) {
			d.Parameters["lr"] = json.RawMessage(`"` + strings.Repeat("é", 100) + `"`)
		}, "parameter lr differs from run r's (\"" + strings.Repeat("é", 38) + "…, there 0.1)"},
		{"artifact", func(d *definition) { d.Artifacts["data"] = []string{"sha256:e"} }, "input artifact data differs from run r's"},
		{"outputs", func(d *definition) { d.OutputParams["out"] = "NUMBER" }, "declaration of its outputs differs from run r's"},
		{"platform", func(d *definition) { d.Platform = json.RawMessage(`{"a":1}`) }, "set of Kubernetes settings differs from run r's"},
		{"named", func(d *definition) { d.Named[".pvcMount[0]"] = json.RawMessage(`"other"`) }, `Kubernetes setting pvcMount[0] differs from run r's ("other", there "vol")`},
	} {
		d := base()
		test.change(d)
		if got := d.differs(base(), "r"); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		// The key tells the same apart, but for digests.
		if same := d.key() == base().key(); same != (test.want == "" || test.name == "digest") {
			t.Errorf("%s: equal keys: %v", test.name, same)
		}
	}
}

// TestDefinitionNames: what platform settings refer to is part of a definition,
// wherever in them it stands.
func TestDefinitionNames(t *testing.T) {
	text := `{"pvcMount": [{"mountPath": "/d", "pvcNameParameter": {"taskOutputParameter": {"producerTask": "make", "outputParameterKey": "name"}}},
		{"mountPath": "/e", "componentInputParameter": "volume"}, {"mountPath": "/f", "constant": "fixed"}],
		"secretAsEnv": [{"secretNameParameter": {"componentInputParameter": "secret"}, "keyToEnv": [{"secretKey": "a", "envVar": "A"}]}]}`
	settings := &kfp.KubernetesExecutorConfig{}
	if err := json.Unmarshal([]byte(text), settings); err != nil {
		t.Fatal(err)
	}
	ir := &kfp.PipelineSpec{}
	ir.DeploymentSpec.Executors = map[string]*kfp.ExecutorSpec{"exec": {Container: &kfp.ContainerSpec{Image: "a"}}}
	plat := &kfp.KubernetesPlatform{}
	plat.DeploymentSpec.Executors = map[string]*kfp.KubernetesExecutorConfig{"exec": settings}
	d, err := definitionOf(ir, plat, &kfp.ComponentSpec{ExecutorLabel: "exec"}, func(spec *kfp.InputParameterSpec) any {
		if spec.TaskOutputParameter != nil {
			return spec.TaskOutputParameter.ProducerTask + "." + spec.TaskOutputParameter.OutputParameterKey
		}
		return "input " + spec.ComponentInputParameter
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]json.RawMessage{
		".pvcMount[0].pvcNameParameter":       json.RawMessage(`"make.name"`),
		".pvcMount[1]":                        json.RawMessage(`"input volume"`),
		".secretAsEnv[0].secretNameParameter": json.RawMessage(`"input secret"`),
	}
	if diff := cmp.Diff(want, d.Named); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
}

// TestOriginValue: what a setting of an earlier task referred to is found beside
// it and around it.
func TestOriginValue(t *testing.T) {
	task := func(path, inputs, outputs string) *skiff.Task {
		made := &skiff.Task{Spec: skiff.TaskSpec{Path: path}}
		for _, part := range []struct {
			text string
			into *map[string]json.RawMessage
		}{{inputs, &made.Status.Inputs}, {outputs, &made.Status.Outputs}} {
			if err := json.Unmarshal([]byte(part.text), part.into); err != nil {
				t.Fatal(err)
			}
		}
		return made
	}
	o := &origin{inputs: map[string]any{"volume": "of the run"}, tasks: map[string]*skiff.Task{}, newest: map[string]*skiff.Task{}}
	for _, made := range []*skiff.Task{
		task("make", `{}`, `{"name": "root"}`), task("use", `{"own": "its own"}`, `{}`),
		task("each/0", `{"volume": "of the pass"}`, `{}`), task("each/0/make", `{}`, `{"name": "inner"}`), task("each/0/use", `{}`, `{}`),
	} {
		o.add(made)
	}
	made := &kfp.InputParameterSpec{TaskOutputParameter: &kfp.TaskOutputParameterSpec{ProducerTask: "make", OutputParameterKey: "name"}}
	input := func(name string) *kfp.InputParameterSpec {
		return &kfp.InputParameterSpec{ComponentInputParameter: name}
	}
	for _, test := range []struct {
		path string
		spec *kfp.InputParameterSpec
		want any
	}{
		{"use", made, "root"}, {"each/0/use", made, "inner"},
		{"use", input("volume"), "of the run"}, {"each/0/use", input("volume"), "of the pass"},
		{"use", input("own"), "its own"}, {"use", input("none"), nil},
	} {
		if got := o.value(o.tasks[test.path])(test.spec); got != test.want {
			t.Errorf("%s: %v, want %v", test.path, got, test.want)
		}
	}
}

// TestClaimBefore: a resumed run goes on with the claim of the run before while
// it is there, so that who mounts it finds what was written.
func TestClaimBefore(t *testing.T) {
	s := storetest.Open(t, append(Kinds(), pod.Kinds()...)...)
	ctx := t.Context()
	first := &execution{c: &Controller{store: s}, run: &skiff.Run{ObjectMeta: core.ObjectMeta{Name: "run-1", Namespace: "default"}}}
	params := values{"access_modes": []any{"ReadWriteOnce"}, "size": "5Mi", "pvc_name_suffix": "-data"}
	made := claimNode("make", params)
	if err := first.createClaim(ctx, made); err != nil {
		t.Fatal(err)
	}
	old := &skiff.Task{ObjectMeta: core.ObjectMeta{Name: "run-1-make"}, Spec: skiff.TaskSpec{Path: "make"}}
	old.Status.State, old.Status.Inputs, old.Status.Outputs = skiff.StateSucceeded, params.encoded(), made.outputs.encoded()
	o := &origin{name: "run-1", tasks: map[string]*skiff.Task{}, newest: map[string]*skiff.Task{}}
	o.add(old)
	second := &execution{c: first.c, origin: o, run: &skiff.Run{ObjectMeta: core.ObjectMeta{Name: "run-2", Namespace: "default"}}}
	look := func(change func(*node)) (string, string) {
		n := claimNode("make", params)
		n.kind = skiff.TaskContainer
		change(n)
		return second.claimBefore(ctx, n, createClaimImage), n.reuse().Reason
	}
	if name, reason := look(func(*node) {}); name != "run-1-data" || !strings.Contains(reason, "taken over from run run-1") {
		t.Errorf("%q: %s", name, reason)
	}
	if name, reason := look(func(n *node) { n.inputs.params = values{"size": "6Mi"} }); name != "" || !strings.Contains(reason, "inputs differ") {
		t.Errorf("%q: %s", name, reason)
	}
	if name, reason := look(func(n *node) { n.forced = true }); name != "" || !strings.Contains(reason, "asked for") {
		t.Errorf("%q: %s", name, reason)
	}
	if _, err := s.Commit(ctx, store.Op{Verb: store.Delete, Key: store.Key{Kind: claimsKind, Namespace: "default", Name: "run-1-data"}}); err != nil {
		t.Fatal(err)
	}
	if name, reason := look(func(*node) {}); name != "" || !strings.Contains(reason, "is there no longer") {
		t.Errorf("%q: %s", name, reason)
	}
}
