package kfp

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
)

func TestNumberText(t *testing.T) {
	for _, tc := range []struct {
		n    float64
		want string
	}{
		{0, "0"}, {5, "5"}, {-3, "-3"}, {1e6, "1000000"}, {0.1, "0.1"}, {2.50, "2.5"}, {1e21, "1000000000000000000000"}, {1e-7, "0.0000001"},
		{9007199254740991, "9007199254740991"}, {1.0 / 3, "0.3333333333333333"},
	} {
		if got := NumberText(tc.n); got != tc.want {
			t.Errorf("%v: got %s, want %s", tc.n, got, tc.want)
		}
	}
}

func TestValueText(t *testing.T) {
	for _, tc := range []struct {
		value any
		want  string
	}{
		{"text", "text"}, {`"quoted"`, `"quoted"`}, {3.0, "3"}, {true, "true"}, {nil, "null"},
		{[]any{"a", 1.0, nil}, `["a",1,null]`}, {map[string]any{"b": "<&>", "a": 1.5}, `{"a":1.5,"b":"<&>"}`},
	} {
		got, err := ValueText(tc.value)
		if err != nil || got != tc.want {
			t.Errorf("%v: got %s, %v, want %s", tc.value, got, err, tc.want)
		}
	}
	if _, err := JSONText(math.Inf(1)); err == nil {
		t.Error("an infinity was written as JSON")
	}
}

func TestCoerceParameter(t *testing.T) {
	list, mapping := []any{1.0}, map[string]any{"a": 1.0}
	values := map[string]any{"text": "x", "whole": 5.0, "fraction": 1.5, "bool": true, "list": list, "map": mapping, "null": nil, "huge": 1e16}
	accepted := map[ParameterType]map[string]any{
		ParameterString:          {"text": "x", "whole": "5", "fraction": "1.5", "bool": "true", "list": "[1]", "map": `{"a":1}`, "huge": "10000000000000000"},
		ParameterDouble:          {"whole": 5.0, "fraction": 1.5, "huge": 1e16},
		ParameterInteger:         {"whole": 5.0},
		ParameterBoolean:         {"bool": true},
		ParameterList:            {"list": list},
		ParameterStruct:          {"map": mapping},
		ParameterTaskFinalStatus: {"map": mapping},
		ParameterTaskConfig:      {"map": mapping},
	}
	for declared, wants := range accepted {
		for name, value := range values {
			got, err := CoerceParameter(declared, value)
			want, ok := wants[name]
			if ok != (err == nil) {
				t.Errorf("%s for %s: %v, %v", name, declared, got, err)
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s for %s: %s", name, declared, diff)
			}
		}
	}
}

func TestParseOutputFile(t *testing.T) {
	for _, tc := range []struct {
		declared ParameterType
		text     string
		want     any // nil: refused
	}{
		{ParameterString, "line\n", "line\n"}, {ParameterString, "", ""}, {ParameterString, `"kept"`, `"kept"`},
		{ParameterInteger, "5\n", 5.0}, {ParameterInteger, "5.0", 5.0}, {ParameterInteger, "5.5", nil}, {ParameterInteger, "", nil}, {ParameterInteger, "five", nil}, {ParameterInteger, "+7", 7.0},
		{ParameterDouble, " 1e-3 ", 0.001}, {ParameterDouble, ".5", 0.5}, {ParameterDouble, "1.", 1.0}, {ParameterDouble, "NaN", nil}, {ParameterDouble, "Infinity", nil}, {ParameterDouble, "0x10", nil}, {ParameterDouble, "1 2", nil},
		{ParameterBoolean, "True\n", true}, {ParameterBoolean, "false", false}, {ParameterBoolean, "1", nil}, {ParameterBoolean, "yes", nil},
		{ParameterList, `["a", 1]`, []any{"a", 1.0}}, {ParameterList, "{}", nil}, {ParameterList, "['a']", nil}, {ParameterList, "[1] [2]", nil}, {ParameterList, strings.Repeat("[", 200), nil},
		{ParameterStruct, `{"a": null}`, map[string]any{"a": nil}}, {ParameterStruct, "[]", nil}, {ParameterStruct, "null", nil},
	} {
		got, err := ParseOutputFile(tc.declared, []byte(tc.text))
		if (tc.want == nil) != (err != nil) {
			t.Errorf("%s %q: got %v, %v", tc.declared, tc.text, got, err)
			continue
		}
		if err == nil {
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s %q: %s", tc.declared, tc.text, diff)
			}
		}
		if fromArgument, argErr := ParseArgument(tc.declared, tc.text); (argErr == nil) != (err == nil) || cmp.Diff(got, fromArgument) != "" {
			t.Errorf("%s %q: as an argument %v, %v", tc.declared, tc.text, fromArgument, argErr)
		}
	}
}

func TestResolveInputs(t *testing.T) {
	inputs := ComponentInputsSpec{
		Parameters: map[string]*InputParameterDef{
			"need":     {ParameterType: ParameterInteger},
			"default":  {ParameterType: ParameterDouble, DefaultValue: 0.5, IsOptional: true},
			"zero":     {ParameterType: ParameterInteger, DefaultValue: 0.0},
			"optional": {ParameterType: ParameterStruct, IsOptional: true},
			"choice":   {ParameterType: ParameterString, DefaultValue: "a", Literals: []any{"a", "b"}},
		},
		Artifacts: map[string]*InputArtifactDef{"maybe": {IsOptional: true}},
	}
	raw := func(pairs ...string) map[string]json.RawMessage {
		out := map[string]json.RawMessage{}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i]] = json.RawMessage(pairs[i+1])
		}
		return out
	}
	for _, tc := range []struct {
		name  string
		given map[string]json.RawMessage
		want  map[string]any
		wrong []string
	}{
		{"defaults", raw("need", "3"), map[string]any{"need": 3.0, "default": 0.5, "zero": 0.0, "choice": "a"}, nil},
		{"all", raw("need", "3.0", "default", "2", "zero", "1", "optional", `{"x": [1]}`, "choice", `"b"`),
			map[string]any{"need": 3.0, "default": 2.0, "zero": 1.0, "optional": map[string]any{"x": []any{1.0}}, "choice": "b"}, nil},
		{"null is absent", raw("need", "3", "optional", "null", "default", "null"), map[string]any{"need": 3.0, "default": 0.5, "zero": 0.0, "choice": "a"}, nil},
		{"missing", nil, nil, []string{"parameters.need: required"}},
		{"null", raw("need", "null"), nil, []string{"parameters.need: want a whole number (NUMBER_INTEGER), got null"}},
		{"several", raw("need", `"3"`, "chioce", "1", "choice", `"c"`, "optional", "[1]", "zero", "9007199254740993"), nil, []string{
			`parameters.chioce: the pipeline has no such input (did you mean "choice"?)`,
			`parameters.choice: "c" is not one of the allowed values "a", "b"`,
			`parameters.need: want a whole number (NUMBER_INTEGER), got the text "3"`,
			`parameters.optional: want a mapping (STRUCT), got a list of 1 (give JSON, such as {"key": "value"})`,
			"parameters.zero: 9007199254740993 is beyond ±9007199254740991",
		}},
		{"not JSON", raw("need", "{"), nil, []string{"parameters.need: read JSON"}},
		{"empty", raw("need", ""), nil, []string{"parameters.need: read JSON"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, problems := ResolveInputs(inputs, tc.given)
			if len(problems) != len(tc.wrong) {
				t.Fatalf("got %v, want %q", problems, tc.wrong)
			}
			for i, want := range tc.wrong {
				if !strings.HasPrefix(problems[i].Error(), want) {
					t.Errorf("got %q, want %q", problems[i], want)
				}
			}
			if len(tc.wrong) == 0 {
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestRootArtifacts(t *testing.T) {
	inputs := ComponentInputsSpec{Artifacts: map[string]*InputArtifactDef{"data": {}, "other": {}}}
	given := map[string]json.RawMessage{"data": json.RawMessage(`"s3://bucket/data"`)}
	if _, problems := ResolveInputs(inputs, given); len(problems) > 0 {
		t.Fatal(problems)
	}
	if diff := cmp.Diff(map[string]string{"data": "s3://bucket/data", "other": ""}, RootArtifacts(inputs, given)); diff != "" {
		t.Error(diff)
	}
	_, problems := ResolveInputs(inputs, map[string]json.RawMessage{"other": json.RawMessage("5")})
	if len(problems) != 1 || problems[0].Field != "parameters.other" {
		t.Errorf("got %v", problems)
	}
}

func TestParseExecutorOutput(t *testing.T) {
	out, err := ParseExecutorOutput([]byte(`{"parameterValues": {"a": 1, "b": NaN, "c": "say NaN \" -Infinity", "d": [-Infinity]}, "future": {},
		"artifacts": {"m": {"artifacts": [{"name": "m", "type": {"schemaTitle": "system.Model"}, "uri": "minio://x", "metadata": {"acc": 0.9}, "customPath": "/tmp/m"}]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &ExecutorOutput{
		ParameterValues: map[string]any{"a": 1.0, "b": "NaN", "c": `say NaN " -Infinity`, "d": []any{"-Infinity"}},
		Artifacts: map[string]ArtifactList{"m": {Artifacts: []RuntimeArtifact{{
			Name: "m", Type: ArtifactTypeSchema{SchemaTitle: "system.Model"}, URI: "minio://x", Metadata: map[string]any{"acc": 0.9}, CustomPath: "/tmp/m",
		}}}},
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	if _, err := ParseExecutorOutput([]byte("not json")); err == nil {
		t.Error("accepted what is no JSON")
	}
}

func TestRequirements(t *testing.T) {
	resolve := func(text string) (string, error) {
		return strings.NewReplacer("{{$.cpu}}", "1500m", "{{$.none}}", "null", "{{$.two}}", "2").Replace(text), nil
	}
	quantities := func(pairs ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i]] = pairs[i+1]
		}
		return out
	}
	for _, tc := range []struct {
		name             string
		spec             *ResourceSpec
		limits, requests map[string]string
		dynamic          bool
		wrong            string
	}{
		{name: "none", spec: nil},
		{name: "numbers", spec: &ResourceSpec{CPULimit: 0.5, MemoryLimit: 1.5, CPURequest: 0.25, MemoryRequest: 1}, limits: quantities("cpu", "0.5", "memory", "1.5G"), requests: quantities("cpu", "0.25", "memory", "1G")},
		{name: "text wins", spec: &ResourceSpec{CPULimit: 8, ResourceCPULimit: "250m", ResourceMemoryLimit: "2Gi"}, limits: quantities("cpu", "250m", "memory", "2Gi")},
		{name: "dynamic", spec: &ResourceSpec{ResourceCPULimit: "{{$.cpu}}", ResourceMemoryRequest: "{{$.none}}", Accelerator: &AcceleratorConfig{ResourceType: "NVIDIA_TESLA_P4", ResourceCount: "{{$.two}}"}},
			limits: quantities("cpu", "1500m", core.ResourceGPU, "2"), dynamic: true},
		{name: "devices", spec: &ResourceSpec{Accelerator: &AcceleratorConfig{Type: "amd.com/gpu", Count: 3}}, limits: quantities("amd.com/gpu", "3")},
		{name: "no devices", spec: &ResourceSpec{Accelerator: &AcceleratorConfig{ResourceType: "nvidia.com/gpu", ResourceCount: "0"}}},
		{name: "bad text", spec: &ResourceSpec{ResourceMemoryLimit: "lots"}, wrong: "resourceMemoryLimit: quantity"},
		{name: "bad number", spec: &ResourceSpec{MemoryLimit: -1}, wrong: "memoryLimit: -1 is not an amount"},
		{name: "bad count", spec: &ResourceSpec{Accelerator: &AcceleratorConfig{ResourceCount: "1.5"}}, wrong: "accelerator: resourceCount: want a whole number"},
		{name: "negative count", spec: &ResourceSpec{Accelerator: &AcceleratorConfig{Count: -1}}, wrong: "must not be negative"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.spec.Requirements(resolve)
			if tc.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wrong) {
					t.Fatalf("got %v, want %q", err, tc.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tc.spec.Dynamic() != tc.dynamic {
				t.Errorf("dynamic is %v", tc.spec.Dynamic())
			}
			text := func(amounts map[string]core.Quantity) map[string]string {
				if amounts == nil {
					return nil
				}
				out := map[string]string{}
				for name, amount := range amounts {
					out[name] = amount.String()
				}
				return out
			}
			if diff := cmp.Diff(tc.limits, text(got.Limits)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tc.requests, text(got.Requests)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
