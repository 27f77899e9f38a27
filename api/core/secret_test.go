package core_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/problem"
)

func named(name string) core.ObjectMeta { return core.ObjectMeta{Name: name, Namespace: "default"} }

func TestSecretDefault(t *testing.T) {
	given := map[string][]byte{"a": []byte("old"), "b": []byte("kept")}
	s := &core.Secret{ObjectMeta: named("s"), Data: given, StringData: map[string]string{"a": "new"}}
	s.Default()
	want := map[string][]byte{"a": []byte("new"), "b": []byte("kept")}
	if diff := cmp.Diff(want, s.Data); diff != "" {
		t.Error(diff)
	}
	if s.StringData != nil || s.SecretType != core.SecretOpaque || string(given["a"]) != "old" {
		t.Errorf("%+v, and the map that was given is %q", s, given)
	}
}

func TestSecretValidate(t *testing.T) {
	const hidden = "hidden-value"
	secret := func(kind string, data map[string]string) *core.Secret {
		return &core.Secret{ObjectMeta: named("s"), SecretType: kind, StringData: data}
	}
	for _, tc := range []struct {
		name string
		give *core.Secret
		want string // empty: valid
	}{
		{"opaque", secret("", map[string]string{"a.b-c_D": hidden}), ""},
		{"empty", secret("", nil), ""},
		{"own type", secret("example.com/thing", map[string]string{"x": hidden}), ""},
		{"name", &core.Secret{ObjectMeta: named("No_Such")}, "metadata.name"},
		{"no name", &core.Secret{}, "metadata.name"},
		{"generated name", &core.Secret{ObjectMeta: core.ObjectMeta{GenerateName: "s-"}}, ""},
		{"key with a slash", secret("", map[string]string{"a/b": hidden}), "a/b"},
		{"key that leads out", secret("", map[string]string{"..": hidden}), ".."},
		{"key that is hidden from mounts", secret("", map[string]string{"..data": hidden}), "..data"},
		{"largest", secret("", map[string]string{"k": strings.Repeat("x", core.MaxDataBytes-1)}), ""},
		{"too large", secret("", map[string]string{"k": strings.Repeat("x", core.MaxDataBytes)}), "1048577 bytes"},
		{"docker config", secret(core.SecretDockerConfigJSON, map[string]string{".dockerconfigjson": `{"auths":{}}`}), ""},
		{"docker config, no key", secret(core.SecretDockerConfigJSON, map[string]string{"x": hidden}), ".dockerconfigjson"},
		{"docker config, no JSON", secret(core.SecretDockerConfigJSON, map[string]string{".dockerconfigjson": hidden}), "not a JSON object"},
		{"old docker config, a list", secret(core.SecretDockerConfig, map[string]string{".dockercfg": `["hidden-value"]`}), "not a JSON object"},
		{"basic auth", secret(core.SecretBasicAuth, map[string]string{"password": hidden}), ""},
		{"basic auth, neither key", secret(core.SecretBasicAuth, map[string]string{"x": hidden}), "username or password"},
		{"ssh", secret(core.SecretSSHAuth, nil), "ssh-privatekey"},
		{"tls, no key", secret(core.SecretTLS, map[string]string{"tls.crt": hidden}), "tls.key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.give.Default()
			err := tc.give.Validate()
			checkProblem(t, err, tc.want)
			if err != nil && strings.Contains(err.Error(), hidden) {
				t.Errorf("the error tells a value: %v", err)
			}
		})
	}
}

func checkProblem(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("got %v, want it valid", err)
	case want != "" && (!errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want a problem that names %q", err, want)
	}
}

func TestSecretUpdate(t *testing.T) {
	yes, no := true, false
	before := func(immutable *bool) *core.Secret {
		return &core.Secret{ObjectMeta: named("s"), SecretType: core.SecretOpaque, Data: map[string][]byte{"k": []byte("v")}, Immutable: immutable}
	}
	for _, tc := range []struct {
		name      string
		immutable *bool
		change    func(*core.Secret)
		want      string
	}{
		{"data", nil, func(s *core.Secret) { s.Data["k"] = []byte("w") }, ""},
		{"type", nil, func(s *core.Secret) { s.SecretType = "other" }, "type"},
		{"become immutable", nil, func(s *core.Secret) { s.Immutable = &yes }, ""},
		{"immutable, labels", &yes, func(s *core.Secret) { s.Labels = map[string]string{"a": "b"} }, ""},
		{"immutable, data", &yes, func(s *core.Secret) { s.Data["k"] = []byte("w") }, "immutable"},
		{"immutable, taken back", &yes, func(s *core.Secret) { s.Immutable = &no }, "immutable"},
		{"immutable, left out", &yes, func(s *core.Secret) { s.Immutable = nil }, "immutable"},
		{"invalid", nil, func(s *core.Secret) { s.Data["a/b"] = nil }, "a/b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			next := before(tc.immutable)
			tc.change(next)
			checkProblem(t, before(tc.immutable).ValidateUpdate(next), tc.want)
		})
	}
}

func TestSecretRedacted(t *testing.T) {
	s := &core.Secret{ObjectMeta: named("s"), Data: map[string][]byte{"k": []byte("hidden-value")}, StringData: map[string]string{"l": "hidden-value"}}
	s.Annotations = map[string]string{"last-applied": "hidden-value"}
	body, err := json.Marshal(s.Redacted())
	if err != nil || strings.Contains(string(body), "hidden-value") || strings.Contains(string(body), "aGlkZGVu") {
		t.Errorf("%s, %v", body, err)
	}
	if !strings.Contains(string(body), `"k":null`) || !strings.Contains(string(body), `"l":null`) {
		t.Errorf("the keys are missing: %s", body)
	}
	if string(s.Data["k"]) != "hidden-value" {
		t.Error("the secret itself was changed")
	}
}

func TestConfigMap(t *testing.T) {
	yes := true
	for _, tc := range []struct {
		name string
		give *core.ConfigMap
		want string
	}{
		{"both", &core.ConfigMap{ObjectMeta: named("c"), Data: map[string]string{"a": "1"}, BinaryData: map[string][]byte{"b": {0xff}}}, ""},
		{"a key twice", &core.ConfigMap{ObjectMeta: named("c"), Data: map[string]string{"a": "1"}, BinaryData: map[string][]byte{"a": {0xff}}}, "in data, too"},
		{"key", &core.ConfigMap{ObjectMeta: named("c"), BinaryData: map[string][]byte{"a b": nil}}, "a b"},
		{"too large together", &core.ConfigMap{ObjectMeta: named("c"), Data: map[string]string{"a": strings.Repeat("x", core.MaxDataBytes/2)},
			BinaryData: map[string][]byte{"b": make([]byte, core.MaxDataBytes/2)}}, "bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) { checkProblem(t, tc.give.Validate(), tc.want) })
	}
	before := &core.ConfigMap{ObjectMeta: named("c"), Data: map[string]string{"a": "1"}, Immutable: &yes}
	checkProblem(t, before.ValidateUpdate(&core.ConfigMap{ObjectMeta: named("c"), Data: map[string]string{"a": "2"}, Immutable: &yes}), "immutable")
	checkProblem(t, before.ValidateUpdate(&core.ConfigMap{ObjectMeta: named("c"), Data: map[string]string{"a": "1"}, Immutable: &yes}), "")
	if value, there := before.Value("a"); !there || string(value) != "1" {
		t.Errorf("value %q, %v", value, there)
	}
	if _, there := before.Value("b"); there {
		t.Error("there is no b")
	}
}

func TestClaim(t *testing.T) {
	claim := func(mode, size string) *core.PersistentVolumeClaim {
		c := &core.PersistentVolumeClaim{ObjectMeta: named("c")}
		if mode != "" {
			c.Spec.AccessModes = []string{mode}
		}
		if size != "" {
			q, err := core.ParseQuantity(size)
			if err != nil {
				t.Fatal(err)
			}
			c.Spec.Resources.Requests = map[string]core.Quantity{core.ResourceStorage: q}
		}
		return c
	}
	checkProblem(t, claim("ReadWriteOnce", "5Gi").Validate(), "")
	checkProblem(t, claim("", "5Gi").Validate(), "accessModes")
	checkProblem(t, claim("ReadWrite", "5Gi").Validate(), `"ReadWrite"`)
	checkProblem(t, claim("ReadWriteMany", "").Validate(), "storage")
	block := claim("ReadWriteMany", "1Gi")
	block.Spec.VolumeMode = "Block"
	checkProblem(t, block.Validate(), "volumeMode")
}
