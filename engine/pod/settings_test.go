package pod

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// secretValue is what must be found in no object and in no message.
const secretValue = "secret-value-$(HOME)"

func (r *rig) secret(name, kind string, data map[string]string) {
	r.t.Helper()
	secret := &core.Secret{ObjectMeta: core.ObjectMeta{Name: name, Namespace: "default"}, SecretType: kind, StringData: data}
	secret.Default()
	if _, err := r.store.Commit(context.Background(), store.Op{Verb: store.Create, Kind: Secrets, Object: secret}); err != nil {
		r.t.Fatalf("create secret %s: %v", name, err)
	}
}

func (r *rig) configMap(name string, data map[string]string) {
	r.t.Helper()
	config := &core.ConfigMap{ObjectMeta: core.ObjectMeta{Name: name, Namespace: "default"}, Data: data}
	if _, err := r.store.Commit(context.Background(), store.Op{Verb: store.Create, Kind: ConfigMaps, Object: config}); err != nil {
		r.t.Fatalf("create config map %s: %v", name, err)
	}
}

func fromSecret(variable, name, key string, optional *bool) core.EnvVar {
	return core.EnvVar{Name: variable, ValueFrom: &core.EnvVarSource{SecretKeyRef: &core.KeySelector{Name: name, Key: key, Optional: optional}}}
}

func fromConfigMap(variable, name, key string, optional *bool) core.EnvVar {
	return core.EnvVar{Name: variable, ValueFrom: &core.EnvVarSource{ConfigMapKeyRef: &core.KeySelector{Name: name, Key: key, Optional: optional}}}
}

func fromField(variable, path string) core.EnvVar {
	return core.EnvVar{Name: variable, ValueFrom: &core.EnvVarSource{FieldRef: &core.FieldSelector{FieldPath: path}}}
}

func TestVariablesFromObjects(t *testing.T) {
	r := newProcessRig(t)
	yes := true
	r.secret("s", core.SecretOpaque, map[string]string{"password": secretValue})
	r.configMap("c", map[string]string{"mode": "fast"})
	out := filepath.Join(r.dir, "out")
	p := shellPod("a", `printf "$PASSWORD|$MODE|$COPY|${GONE-unset}|${KEYLESS-unset}|$NAME|$SPACE|$LABEL|$NOTE|$NODE|$IP" > "$0"`)
	p.Annotations = map[string]string{"example.com/note": "n"}
	p.Labels["app"] = "x"
	p.Spec.Containers[0].Args = []string{out}
	p.Spec.Containers[0].Env = []core.EnvVar{
		fromSecret("PASSWORD", "s", "password", nil), fromConfigMap("MODE", "c", "mode", nil), {Name: "COPY", Value: "<$(PASSWORD)>"},
		fromSecret("GONE", "none", "x", &yes), fromSecret("KEYLESS", "s", "none", &yes),
		fromField("NAME", "metadata.name"), fromField("SPACE", "metadata.namespace"), fromField("LABEL", "metadata.labels['app']"),
		fromField("NOTE", "metadata.annotations['example.com/note']"), fromField("NODE", "spec.nodeName"), fromField("IP", "status.podIP"),
	}
	p.Spec.Skiff = &core.PodExtension{Outputs: []core.OutputFile{{Name: "all", Path: out}}}
	r.create(p)
	got := r.ended("a")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := secretValue + "|fast|<" + secretValue + ">|unset|unset|a|default|x|n|" + host + "|127.0.0.1"
	if got.Status.Phase != core.PodSucceeded || string(got.Status.Skiff.Outputs["all"]) != want {
		t.Errorf("status = %+v\noutput %+v\nwant   %q", got.Status, got.Status.Skiff, want)
	}
	for _, tc := range []struct {
		name string
		env  core.EnvVar
		want string
	}{
		{"no-secret", fromSecret("X", "none", "x", nil), `secret "none" is not in namespace default; make it (skiff secret create none`},
		{"no-key", fromSecret("X", "s", "user", nil), `secret "s" has no key "user"; it has ["password"]`},
		{"no-config", fromConfigMap("X", "none", "x", nil), "skiff configmap create none"},
		{"no-field", fromField("X", "spec.containers[0].image"), "cannot be had"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := shellPod(tc.name, "true")
			p.Spec.Containers[0].Env = []core.EnvVar{tc.env}
			r.create(p)
			got := r.ended(tc.name)
			if got.Status.Phase != core.PodFailed || !strings.Contains(got.Status.Message, tc.want) || strings.Contains(got.Status.Message, "secret-value") {
				t.Errorf("status = %+v, want %q", got.Status, tc.want)
			}
		})
	}
}

// TestSecretsLeaveNoTrace: nothing of a secret that a pod was given is in the
// state folder when the pod has ended.
func TestSecretsLeaveNoTrace(t *testing.T) {
	r := newProcessRig(t)
	r.secret("s", core.SecretOpaque, map[string]string{"password": secretValue})
	p := shellPod("a", `test -n "$PASSWORD"`)
	p.Spec.Containers[0].Env = []core.EnvVar{fromSecret("PASSWORD", "s", "password", nil)}
	uid := r.create(p).UID
	if got := r.ended("a"); got.Status.Phase != core.PodSucceeded {
		t.Fatalf("status = %+v", got.Status)
	}
	r.eventually("the pod is cleared up", func() bool { return r.tidied(uid) })
	err := filepath.WalkDir(r.dir, func(path string, entry os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // its folder is still being emptied
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if strings.Contains(string(content), "secret-value") || strings.Contains(string(content), "c2VjcmV0LXZhbHVl") {
			t.Errorf("%s holds the secret", path)
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNodeWishes: there is one node, so a wish that it does not fulfil is told
// of and stops nothing.
func TestNodeWishes(t *testing.T) {
	r := newRig(t, func(c *Config) { c.NodeName, c.NodeLabels = "bench", map[string]string{"disk": "ssd", "cores": "8"} })
	require := func(terms ...core.NodeSelectorTerm) *core.Affinity {
		return &core.Affinity{NodeAffinity: &core.NodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: terms}}}
	}
	expression := func(key, operator string, values ...string) core.NodeSelectorTerm {
		return core.NodeSelectorTerm{MatchExpressions: []core.SelectorRequirement{{Key: key, Operator: operator, Values: values}}}
	}
	for _, tc := range []struct {
		name     string
		selector map[string]string
		affinity *core.Affinity
		want     string // empty: fits
	}{
		{"none", nil, nil, ""},
		{"fits", map[string]string{"disk": "ssd", "kubernetes.io/os": "linux", "kubernetes.io/hostname": "bench"}, require(expression("cores", "Gt", "4")), ""},
		{"missing", map[string]string{"zone": "a"}, nil, "nodeSelector zone=a"},
		{"other", map[string]string{"disk": "hdd"}, nil, "nodeSelector disk=hdd"},
		{"one-term", nil, require(expression("zone", "Exists"), expression("disk", "In", "ssd", "nvme")), ""},
		{"no-term", nil, require(expression("zone", "Exists"), expression("disk", "NotIn", "ssd")), "required node affinity"},
		{"empty-term", nil, require(core.NodeSelectorTerm{}), "required node affinity"},
		{"by-name", nil, require(core.NodeSelectorTerm{MatchFields: []core.SelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{"bench"}}}}), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := podNamed(tc.name, "exit", "0")
			p.Spec.NodeSelector, p.Spec.Affinity = tc.selector, tc.affinity
			r.create(p)
			got := r.ended(tc.name)
			condition := core.FindCondition(got.Status.Conditions, "PodScheduled")
			if got.Status.Phase != core.PodSucceeded || condition == nil || condition.Status != "True" {
				t.Fatalf("status = %+v", got.Status)
			}
			if (tc.want == "") != (condition.Message == "") || !strings.Contains(condition.Message, tc.want) {
				t.Errorf("message %q, want %q", condition.Message, tc.want)
			}
		})
	}
}
