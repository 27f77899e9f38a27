package pipeline

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
)

func TestQuoteDollars(t *testing.T) {
	names := []string{"HOME", "A"}
	for text, want := range map[string]string{
		"":                 "",
		"plain":            "plain",
		"$(HOME)/x":        "$(HOME)/x",
		"$$(HOME)":         "$$(HOME)",
		"$$$(HOME)":        "$$$(HOME)", // a dollar and the variable
		"$$$(OTHER)":       "$$$$$$(OTHER)",
		"$(OTHER)":         "$$(OTHER)",
		"$$(OTHER)":        "$$$$(OTHER)",
		"$HOME":            "$$HOME",
		"$":                "$$",
		"a$":               "a$$",
		"$(A)$(HOME)$(B)":  "$(A)$(HOME)$$(B)",
		"$(AB)":            "$$(AB)",
		"$(A":              "$$(A",
		`"$0" "$@"`:        `"$$0" "$$@"`,
		"cost: 5$ and $$ ": "cost: 5$$ and $$$$ ",
	} {
		if got := quoteDollars(text, names); got != want {
			t.Errorf("quoteDollars(%q) = %q, want %q", text, got, want)
		}
	}
	if got := quoteDollars("$(HOME)", nil); got != "$$(HOME)" {
		t.Errorf("without names: %q", got)
	}
	for text, want := range map[string]string{"(A)": "(A)", "(A) x": "(A)", "(HOME)(A)": "(HOME)", "A)": "", "": "", "(": "", "(AB)": ""} {
		if got := referenceAt(text, names); got != want {
			t.Errorf("referenceAt(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestRetryDelay(t *testing.T) {
	s := func(d time.Duration) kfp.Duration { return kfp.Duration(d) }
	for _, tt := range []struct {
		name   string
		policy kfp.RetryPolicy
		want   []time.Duration // after attempt 1, 2, …
	}{
		{"none", kfp.RetryPolicy{}, []time.Duration{0, 0}},
		{"a factor alone", kfp.RetryPolicy{BackoffFactor: 3}, []time.Duration{0, 0}},
		{"doubling", kfp.RetryPolicy{BackoffDuration: s(time.Second)}, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}},
		{"constant", kfp.RetryPolicy{BackoffDuration: s(time.Second), BackoffFactor: 1}, []time.Duration{time.Second, time.Second, time.Second}},
		{"a bound", kfp.RetryPolicy{BackoffDuration: s(time.Second), BackoffFactor: 10, BackoffMaxDuration: s(5 * time.Second)}, []time.Duration{time.Second, 5 * time.Second, 5 * time.Second}},
		{"a bound below", kfp.RetryPolicy{BackoffDuration: s(time.Minute), BackoffMaxDuration: s(time.Second)}, []time.Duration{time.Second}},
		{"an hour at most", kfp.RetryPolicy{BackoffDuration: s(50 * time.Minute)}, []time.Duration{50 * time.Minute, time.Hour, time.Hour}},
		{"a huge factor", kfp.RetryPolicy{BackoffDuration: s(time.Second), BackoffFactor: 1e300}, []time.Duration{time.Second, time.Hour, time.Hour}},
	} {
		for i, want := range tt.want {
			if got := retryDelay(&tt.policy, i+1); got != want {
				t.Errorf("%s: after attempt %d: %s, want %s", tt.name, i+1, got, want)
			}
		}
	}
	if got := retryDelay(&kfp.RetryPolicy{BackoffDuration: s(time.Second)}, 1000000); got != time.Hour {
		t.Errorf("after a million attempts: %s", got)
	}
}

func TestLoopItems(t *testing.T) {
	x := &execution{c: &Controller{limits: kfp.Limits{MaxIterations: 3}}}
	named := &kfp.ParameterIteratorSpec{Items: kfp.ParameterItems{InputParameter: "list"}}
	for _, tt := range []struct {
		name     string
		iterator *kfp.ParameterIteratorSpec
		value    any
		want     []any
		fails    string
	}{
		{"raw", &kfp.ParameterIteratorSpec{Items: kfp.ParameterItems{Raw: `[1, "a", null]`}}, nil, []any{1.0, "a", nil}, ""},
		{"raw, nothing", &kfp.ParameterIteratorSpec{Items: kfp.ParameterItems{Raw: `[]`}}, nil, []any{}, ""},
		{"an input", named, []any{"x", map[string]any{"a": 1.0}}, []any{"x", map[string]any{"a": 1.0}}, ""},
		{"an input as text", named, `["x", [1]]`, []any{"x", []any{1.0}}, ""},
		{"absent", named, nil, []any{}, ""},
		{"null as text", named, "null", []any{}, ""},
		{"no list", named, 7.0, nil, "want a list"},
		{"a struct as text", named, `{"a": 1}`, nil, "want a list"},
		{"no JSON", named, "a, b", nil, "want a JSON list"},
		{"too many", named, []any{1.0, 2.0, 3.0, 4.0}, nil, "at most 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &node{spec: &kfp.PipelineTaskSpec{ParameterIterator: tt.iterator}, inputs: inputs{params: values{}}}
			if tt.value != nil {
				n.inputs.params["list"] = tt.value
			}
			items, err := x.loopItems(n)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("error %v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := []any{}
			for _, it := range items {
				got = append(got, it.param)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	a, b := &skiff.Artifact{}, &skiff.Artifact{}
	n := &node{
		spec:   &kfp.PipelineTaskSpec{ArtifactIterator: &kfp.ArtifactIteratorSpec{Items: kfp.ArtifactItems{InputArtifact: "list"}}},
		inputs: inputs{artifacts: artifactMap{"list": {items: []*skiff.Artifact{a, b}}}},
	}
	items, err := x.loopItems(n)
	if err != nil || len(items) != 2 || items[0].artifact != a || items[1].artifact != b {
		t.Errorf("artifacts: %v, %v", items, err)
	}
}

func TestCollect(t *testing.T) {
	artifact := func(name string) *skiff.Artifact {
		return &skiff.Artifact{ObjectMeta: core.ObjectMeta{Name: name}}
	}
	loop := &node{component: &kfp.ComponentSpec{OutputDefinitions: kfp.ComponentOutputsSpec{
		Parameters: map[string]*kfp.OutputParameterDef{"out": {}, "lists": {}, "never": {}},
		Artifacts:  map[string]*kfp.OutputArtifactSpec{"models": {}, "none": {}},
	}}}
	loop.passes = []*node{
		{outputs: values{"out": "a", "lists": []any{1.0, 2.0}}, results: artifactMap{"models": {items: []*skiff.Artifact{artifact("m1"), artifact("m2")}}}},
		{outputs: values{"lists": []any{}}, results: artifactMap{}}, // a branch that was not taken
		{outputs: values{"out": nil, "lists": []any{3.0}}, results: artifactMap{"models": {items: []*skiff.Artifact{artifact("m3")}}}},
	}
	out, results := collect(loop)
	if diff := cmp.Diff(values{"out": []any{"a", nil}, "lists": []any{[]any{1.0, 2.0}, []any{}, []any{3.0}}, "never": []any{}}, out); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]string{"models": {"m1", "m2", "m3"}, "none": {}}, results.names()); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
	for name, list := range results {
		if !list.list {
			t.Errorf("%s is not a list", name)
		}
	}
}

func TestFinalStatus(t *testing.T) {
	x := &execution{run: &skiff.Run{ObjectMeta: core.ObjectMeta{Name: runName}}, ir: &kfp.PipelineSpec{PipelineInfo: kfp.PipelineInfo{Name: "p"}}}
	for state, want := range map[skiff.State]string{
		skiff.StateSucceeded: "COMPLETE", skiff.StateFailed: "FAILED", skiff.StateCanceled: "CANCELED", skiff.StateSkipped: "SKIPPED",
	} {
		n := &node{key: "group", task: &skiff.Task{Status: skiff.TaskStatus{State: state, Message: "why"}}}
		expected := map[string]any{"state": want, "pipelineJobResourceName": "p-77f51", "pipelineTaskName": "group", "error": map[string]any{}}
		if state == skiff.StateFailed {
			expected["error"] = map[string]any{"code": 2.0, "message": "why"}
		}
		if diff := cmp.Diff(expected, x.finalStatus(n)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", state, diff)
		}
	}
}

// stored is an object as it comes back from the store.
func stored[T any](t *testing.T, obj *T) *T {
	t.Helper()
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	back := new(T)
	if err := json.Unmarshal(data, back); err != nil {
		t.Fatal(err)
	}
	return back
}

// TestContentOf: an artifact counts the same whether its producer has just made
// it or it was read back, and whether its digest was recorded or computed now.
func TestContentOf(t *testing.T) {
	base := func() *skiff.Artifact {
		return &skiff.Artifact{
			ObjectMeta: core.ObjectMeta{Name: "a"},
			Spec:       skiff.ArtifactSpec{SchemaTitle: "system.Model", URI: "minio://b/k", Metadata: metadataOf(map[string]any{"html": "<&>", "n": 1e21, "deep": map[string]any{"b": 1.0, "a": nil}})},
		}
	}
	digests := map[string]string{"a": "sha256:1"}
	want := contentOf(base(), digests)
	recorded := base()
	recorded.Status.Digest = "sha256:1"
	for name, a := range map[string]*skiff.Artifact{"stored": stored(t, base()), "stored, with its digest": stored(t, recorded)} {
		if got := contentOf(a, digests); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	bare, empty := base(), base()
	bare.Spec.Metadata, empty.Spec.Metadata = nil, map[string]json.RawMessage{}
	if a, b, c := contentOf(bare, digests), contentOf(empty, digests), contentOf(stored(t, empty), digests); a != b || b != c {
		t.Errorf("no metadata, empty metadata, stored: %q, %q, %q", a, b, c)
	}
	seen := map[string]string{want: "the first"}
	for name, change := range map[string]func(*skiff.Artifact){
		"content":  func(a *skiff.Artifact) { a.Status.Digest = "sha256:2" },
		"type":     func(a *skiff.Artifact) { a.Spec.SchemaTitle = "system.Dataset" },
		"metadata": func(a *skiff.Artifact) { a.Spec.Metadata["n"] = json.RawMessage("2") },
		"unknown":  func(a *skiff.Artifact) { a.Name = "other" },
		"address":  func(a *skiff.Artifact) { a.Name, a.Spec.URI = "other", "minio://b/l" },
	} {
		a := base()
		change(a)
		got := contentOf(a, digests)
		if other := seen[got]; other != "" {
			t.Errorf("another %s counts as %s: %q", name, other, got)
		}
		seen[got] = name
	}
}

func TestFingerprint(t *testing.T) {
	base := func() *fingerprint {
		return &fingerprint{
			Pipeline: "p", Namespace: "n", Parameters: values{"a": 1.0, "b": map[string]any{"y": "<", "x": nil}}.encoded(),
			Artifacts: map[string][]string{"m": {"1", "2"}}, OutputParams: map[string]string{"o": "STRING"}, OutputArtifacts: map[string]string{"m": "t"},
			Image: "sha256:i", Command: []string{"c"}, Args: []string{"a"}, Env: []kfp.EnvVar{{Name: "N", Value: "v"}}, Claims: []string{"c"},
		}
	}
	want := base().hash()
	if got := stored(t, base()).hash(); got != want {
		t.Errorf("stored: %s, want %s", got, want)
	}
	hollow := &fingerprint{Pipeline: "p", Parameters: map[string]json.RawMessage{}, Artifacts: map[string][]string{}, Command: []string{}, Env: []kfp.EnvVar{}}
	if got, want := hollow.hash(), (&fingerprint{Pipeline: "p"}).hash(); got != want {
		t.Errorf("empty maps and lists are %s, absent ones %s", got, want)
	}
	seen := map[string]string{want: "the first"}
	v := reflect.ValueOf(base()).Elem()
	for i := range v.NumField() {
		f := base()
		switch field := reflect.ValueOf(f).Elem().Field(i); field.Kind() {
		case reflect.String:
			field.SetString("other")
		default:
			field.SetZero()
		}
		got, name := f.hash(), v.Type().Field(i).Name
		if other := seen[got]; other != "" {
			t.Errorf("another %s counts as %s", name, other)
		}
		seen[got] = name
	}
}

func TestEncodedIsStable(t *testing.T) {
	if got := (values{}).encoded(); got != nil {
		t.Errorf("no values: %v", got)
	}
	in := values{"n": nil, "f": 0.1, "i": 3.0, "s": "é<", "l": []any{1.0, "x"}, "m": map[string]any{"b": true, "a": 1.0}}
	back := values{}
	for name, raw := range in.encoded() {
		back[name] = decoded(raw)
	}
	if diff := cmp.Diff(in, back); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// features uses each field of the platform document, by its published name.
func features() map[string]*kfp.KubernetesExecutorConfig {
	all := map[string]*kfp.KubernetesExecutorConfig{}
	kind := reflect.TypeFor[kfp.KubernetesExecutorConfig]()
	for i := range kind.NumField() {
		config := new(kfp.KubernetesExecutorConfig)
		field := reflect.ValueOf(config).Elem().Field(i)
		switch field.Kind() {
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		case reflect.Pointer:
			field.Set(reflect.New(field.Type().Elem()))
		case reflect.String:
			field.SetString("Always")
		case reflect.Int64:
			field.SetInt(1)
		}
		name, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
		all[name] = config
	}
	return all
}

// TestUnsupported: what is not honoured is refused by its name, and nothing else.
func TestUnsupported(t *testing.T) {
	c := &Controller{}
	all := features()
	if len(all) < 20 {
		t.Fatalf("%d fields of the published message, want 20 at least", len(all))
	}
	for name := range refused {
		if all[name] == nil {
			t.Errorf("%s is refused and no field of the message", name)
		}
	}
	for name, config := range all {
		pkg := &kfp.Package{
			Spec:     &kfp.PipelineSpec{DeploymentSpec: kfp.DeploymentSpec{Executors: map[string]*kfp.ExecutorSpec{"exec-a": {Container: &kfp.ContainerSpec{Image: "i"}}}}},
			Platform: &kfp.KubernetesPlatform{DeploymentSpec: kfp.PlatformDeployment{Executors: map[string]*kfp.KubernetesExecutorConfig{"exec-a": config}}},
		}
		problems := c.unsupported(pkg)
		switch {
		case refused[name] == "" && len(problems) > 0:
			t.Errorf("%s is honoured and refused: %v", name, problems)
		case refused[name] != "" && len(problems) != 1:
			t.Errorf("%s is not honoured, and there are %d problems", name, len(problems))
		case refused[name] != "" && (!strings.Contains(problems.Error(), "exec-a."+name) || problems[0].Hint == ""):
			t.Errorf("%s: %v", name, problems)
		}
	}
}

func TestApplyPlatform(t *testing.T) {
	x := &execution{run: &skiff.Run{ObjectMeta: core.ObjectMeta{Name: "r"}, Spec: skiff.RunSpec{DisplayName: "shown"}}}
	medium, size, bad := "Memory", "64Mi", "many"
	newPod := func() *core.Pod {
		return &core.Pod{
			ObjectMeta: core.ObjectMeta{Labels: map[string]string{core.LabelRun: "r"}},
			Spec:       core.PodSpec{Containers: []core.Container{{Name: mainContainer}}},
		}
	}
	pod := newPod()
	if err := x.applyPlatform(pod, &step{}); err != nil || !reflect.DeepEqual(pod, newPod()) {
		t.Errorf("without settings: %v, %+v", err, pod)
	}
	err := x.applyPlatform(pod, &step{platform: &kfp.KubernetesExecutorConfig{
		ActiveDeadlineSeconds: 60, ImagePullPolicy: "Always", Tolerations: []kfp.Toleration{{Key: "gpu"}},
		PodMetadata: &kfp.PodMetadata{
			Labels:      map[string]string{"team": "a", core.LabelRun: "forged", "skiff.dev/other": "x"},
			Annotations: map[string]string{"note": "b"},
		},
		EmptyDirMounts: []kfp.EmptyDirMount{{MountPath: "/cache", Medium: &medium, SizeLimit: &size}, {VolumeName: "tmp", MountPath: "/tmp2"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	limit, err := core.ParseQuantity(size)
	if err != nil {
		t.Fatal(err)
	}
	seconds := int64(60)
	want := newPod()
	want.Labels["team"] = "a"
	want.Annotations = map[string]string{"note": "b", annotationRunName: "shown", annotationRunID: "r"}
	want.Spec.ActiveDeadlineSeconds = &seconds
	want.Spec.Volumes = []core.Volume{
		{Name: "empty-0", EmptyDir: &core.EmptyDirVolume{Medium: "Memory", SizeLimit: limit}}, {Name: "tmp", EmptyDir: &core.EmptyDirVolume{}},
	}
	want.Spec.Tolerations = []core.Toleration{{Key: "gpu"}}
	want.Spec.Containers[0].ImagePullPolicy = "Always"
	want.Spec.Containers[0].VolumeMounts = []core.VolumeMount{{Name: "empty-0", MountPath: "/cache"}, {Name: "tmp", MountPath: "/tmp2"}}
	if a, b := asJSON(t, want), asJSON(t, pod); a != b {
		t.Errorf("pod (-want +got):\n%s", cmp.Diff(a, b))
	}
	err = x.applyPlatform(newPod(), &step{platform: &kfp.KubernetesExecutorConfig{EmptyDirMounts: []kfp.EmptyDirMount{{MountPath: "/x", SizeLimit: &bad}}}})
	if err == nil || !strings.Contains(err.Error(), "emptyDirMounts[0].sizeLimit") {
		t.Errorf("a size that is none: %v", err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTaskConfig(t *testing.T) {
	cpu, err := core.ParseQuantity("2")
	if err != nil {
		t.Fatal(err)
	}
	newContainer := func() core.Container {
		return core.Container{
			Resources: core.ResourceRequirements{Limits: map[string]core.Quantity{"cpu": cpu}},
			Env:       []core.EnvVar{{Name: retryIndex, Value: "0"}, {Name: "A", Value: "1"}},
		}
	}
	resources, env := map[string]any{"limits": map[string]any{"cpu": "2"}}, []any{map[string]any{"name": "A", "value": "1"}}
	for _, tt := range []struct {
		name    string
		passed  []kfp.TaskConfigPassthrough
		config  map[string]any
		limits  bool
		envLeft []string
	}{
		{"nothing", nil, map[string]any{}, true, []string{retryIndex, "A"}},
		{"resources handed over", []kfp.TaskConfigPassthrough{{Field: kfp.ConfigResources}}, map[string]any{"resources": resources}, false, []string{retryIndex, "A"}},
		{"resources for both", []kfp.TaskConfigPassthrough{{Field: kfp.ConfigResources, ApplyToTask: true}}, map[string]any{"resources": resources}, true, []string{retryIndex, "A"}},
		{"environment handed over", []kfp.TaskConfigPassthrough{{Field: kfp.ConfigEnv}}, map[string]any{"env": env}, true, []string{retryIndex}},
		{"environment for both", []kfp.TaskConfigPassthrough{{Field: kfp.ConfigEnv, ApplyToTask: true}}, map[string]any{"env": env}, true, []string{retryIndex, "A"}},
		{"what cannot be set", []kfp.TaskConfigPassthrough{{Field: kfp.ConfigVolumes}, {Field: kfp.ConfigAffinity}}, map[string]any{}, true, []string{retryIndex, "A"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			component, c := &kfp.ComponentSpec{TaskConfigPassthroughs: tt.passed}, newContainer()
			before := slices.Clone(c.Env)
			got, err := taskConfig(component, &c)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.config, got); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
			if !slices.Equal(before, c.Env) {
				t.Errorf("taskConfig changed the container: %v", c.Env)
			}
			handOver(component, &c)
			var left []string
			for _, e := range c.Env {
				left = append(left, e.Name)
			}
			if (len(c.Resources.Limits) > 0) != tt.limits || !slices.Equal(left, tt.envLeft) {
				t.Errorf("left: %v, %v", c.Resources, left)
			}
		})
	}
}

// TestFits: each executor's plain resources are held against the node, by label.
func TestFits(t *testing.T) {
	asked := map[string]core.ResourceRequirements{}
	c := &Controller{fit: func(pod *core.Pod) error {
		r := pod.Spec.Containers[0].Resources
		cpu := r.Limits["cpu"]
		asked[cpu.String()] = r
		if cpu.String() == "64" {
			return errors.New("asks for 64 CPUs, the node has 8")
		}
		return nil
	}}
	executors := map[string]*kfp.ExecutorSpec{
		"none":     {Container: &kfp.ContainerSpec{}},
		"small":    {Container: &kfp.ContainerSpec{Resources: &kfp.ResourceSpec{ResourceCPULimit: "2"}}},
		"large":    {Container: &kfp.ContainerSpec{Resources: &kfp.ResourceSpec{CPULimit: 64}}},
		"dynamic":  {Container: &kfp.ContainerSpec{Resources: &kfp.ResourceSpec{ResourceCPULimit: "{{$.inputs.parameters['cpu']}}"}}},
		"wrong":    {Container: &kfp.ContainerSpec{Resources: &kfp.ResourceSpec{ResourceMemoryLimit: "lots"}}},
		"importer": {Importer: &kfp.ImporterSpec{}},
	}
	problems := c.fits(&kfp.Package{Spec: &kfp.PipelineSpec{DeploymentSpec: kfp.DeploymentSpec{Executors: executors}}}, nil)
	if len(problems) != 2 {
		t.Fatalf("problems: %v", problems)
	}
	if got := problems[0].Error(); !strings.Contains(got, "executors.large.container.resources") || !strings.Contains(got, "64 CPUs") || problems[0].Hint == "" {
		t.Errorf("large: %v", got)
	}
	if got := problems[1].Error(); !strings.Contains(got, "executors.wrong.container.resources") {
		t.Errorf("wrong: %v", got)
	}
	if keys := slices.Sorted(maps.Keys(asked)); !slices.Equal(keys, []string{"2", "64"}) {
		t.Errorf("asked about %v", keys)
	}
}
