package expr

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/skiff-ml/skiff/api/kfp"
)

var update = flag.Bool("update", false, "write what is got into the golden files")

// sample is a task with an input of every kind.
func sample() *Context {
	one := func(name, uri string) kfp.RuntimeArtifact { return kfp.RuntimeArtifact{Name: name, URI: uri} }
	data := one("data", "minio://b/data")
	data.Metadata = map[string]any{"rows": 3.0, "note": "text"}
	custom := one("custom", "minio://b/custom")
	custom.CustomPath = "/tmp/custom"
	component := &kfp.ComponentSpec{InputDefinitions: kfp.ComponentInputsSpec{
		Parameters: map[string]*kfp.InputParameterDef{},
		Artifacts:  map[string]*kfp.InputArtifactDef{"data": {}, "custom": {}, "many": {}, "empty": {}, "nothing": {IsOptional: true}},
	}}
	params := map[string]any{
		"name": `Ada <&> "L"`, "count": 5.0, "rate": 0.001, "big": 123456789012.0, "flag": true, "list": []any{"a", 1.0, nil},
		"map": map[string]any{"k": "<v>", "n": 2.5}, "tricky": "{{$.pipeline_root}} {{$}}",
	}
	for name := range params {
		component.InputDefinitions.Parameters[name] = &kfp.InputParameterDef{}
	}
	component.InputDefinitions.Parameters["absent"] = &kfp.InputParameterDef{IsOptional: true}
	params["none"] = nil
	return &Context{
		Component: component,
		Input: &kfp.ExecutorInput{
			Inputs: kfp.ExecutorInputs{ParameterValues: params, Artifacts: map[string]kfp.ArtifactList{
				"data": {Artifacts: []kfp.RuntimeArtifact{data}}, "custom": {Artifacts: []kfp.RuntimeArtifact{custom}}, "empty": {},
				"many": {Artifacts: []kfp.RuntimeArtifact{one("one", "minio://b/1"), one("two", "minio://b/2")}},
			}},
			Outputs: kfp.ExecutorOutputs{
				Parameters: map[string]kfp.OutputParameter{"score": {OutputFile: "/tmp/kfp/outputs/score"}},
				Artifacts:  map[string]kfp.ArtifactList{"model": {Artifacts: []kfp.RuntimeArtifact{one("model", "minio://b/model")}}},
				OutputFile: "/minio/b/output_metadata.json",
			},
		},
		JobName: "shown name", JobResourceName: "example-abcde", JobUUID: "run-1", TaskName: "train", TaskUUID: "task-1",
		JobCreateTime:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		JobScheduleTime: time.Date(2026, 1, 2, 4, 0, 0, 0, time.FixedZone("CET", 3600)),
		PipelineRoot:    "minio://b", WorkspacePath: "/kfp-workspace",
		ContainerPath: func(a kfp.RuntimeArtifact) (string, error) {
			return "/" + strings.Replace(a.URI, "://", "/", 1), nil
		},
	}
}

func TestPlaceholders(t *testing.T) {
	files, err := filepath.Glob("testdata/placeholders/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			ctx := sample()
			var got strings.Builder
			for line := range strings.Lines(string(archive.Files[0].Data)) {
				_, args, err := Resolve(nil, []string{strings.TrimSuffix(line, "\n")}, ctx)
				if err != nil {
					got.WriteString("error: " + err.Error() + "\n")
					continue
				}
				if args == nil {
					args = []string{}
				}
				text, err := kfp.JSONText(args)
				if err != nil {
					t.Fatal(err)
				}
				got.WriteString(text + "\n")
			}
			if *update {
				archive.Files[1].Data = []byte(got.String())
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExecutorInputPlaceholder(t *testing.T) {
	ctx := sample()
	command, args, err := Resolve([]string{"python3", "{{$}}"}, []string{"--executor_input={{$}}"}, ctx)
	if err != nil {
		t.Fatal(err)
	}
	var back kfp.ExecutorInput
	if err := json.Unmarshal([]byte(command[1]), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*ctx.Input, back); diff != "" {
		t.Error(diff)
	}
	if command[0] != "python3" || args[0] != "--executor_input="+command[1] || strings.Contains(command[1], `\u003c`) {
		t.Errorf("got %q %q", command, args)
	}
}

// TestProgramText holds that the source of a component, which may speak of
// placeholders itself, is changed only where one really resolves.
func TestProgramText(t *testing.T) {
	source := "\nimport kfp\nfrom kfp import dsl\n\ndef f():\n    print(\"{{$.nonsense}} {{$.inputs.parameters['nope']}} {{$.pipeline_root}}\")\n"
	_, args, err := Resolve(nil, []string{source}, sample())
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(source, "{{$.pipeline_root}}", "minio://b", 1); args[0] != want {
		t.Errorf("got %q", args[0])
	}
}

func TestResolveString(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"python:3.11", "python:3.11"},
		{"{{$.inputs.parameters['count']}}Gi", "5Gi"},
		{"a {{$.Values.x}} b", "a {{$.Values.x}} b"},
		{"{{$.inputs.parameters['absent']}}", "null"},
	} {
		got, err := ResolveString(tc.text, sample())
		if err != nil || got != tc.want {
			t.Errorf("%s: got %q, %v", tc.text, got, err)
		}
	}
	if _, err := ResolveString("{{$.inputs.parameters['nope']}}", sample()); err == nil {
		t.Error("an input that does not exist was resolved")
	}
	// Without declarations every input may be absent.
	bare := &Context{Input: &kfp.ExecutorInput{}}
	if got, err := ResolveString("{{$.inputs.parameters['nope']}}{{$.inputs.artifacts['a'].uri}}", bare); err != nil || got != "nullnull" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := ResolveString("{{$}}", &Context{}); err == nil {
		t.Error("the executor input was resolved where there is none")
	}
}

// TestQuote holds that the author's text and what took a placeholder's place
// reach the quoting apart.
func TestQuote(t *testing.T) {
	ctx := sample()
	ctx.Quote = func(part string, literal bool) string {
		if literal {
			return "<" + part + ">"
		}
		return "(" + part + ")"
	}
	_, args, err := Resolve(nil, []string{"$(A) {{$.inputs.parameters['count']}}", `{"Concat": ["x", "{{$.pipeline_root}}"]}`}, ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"<$(A) >(5)", "<x>(minio://b)"}, args); diff != "" {
		t.Error(diff)
	}
	if got, err := ResolveString("plain", ctx); err != nil || got != "<plain>" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestResolveValue(t *testing.T) {
	got, err := ResolveValue(map[string]any{
		"key-{{$.inputs.parameters['count']}}": "{{$.inputs.parameters['count']}}",
		"deep":                                 []any{"{{$.inputs.parameters['map']}}", map[string]any{"a": "x{{$.inputs.parameters['flag']}}"}, 1.0, nil},
	}, sample())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"key-5": 5.0,
		"deep":  []any{map[string]any{"k": "<v>", "n": 2.5}, map[string]any{"a": "xtrue"}, 1.0, nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []any{"{{$.inputs.parameters['nope']}}", []any{"{{$.inputs.x}}"}, map[string]any{"{{$.inputs.x}}": 1.0}} {
		if got, err := ResolveValue(bad, sample()); err == nil {
			t.Errorf("%v became %v", bad, got)
		}
	}
}

func FuzzResolve(f *testing.F) {
	files, err := filepath.Glob("testdata/placeholders/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(archive.Files[0].Data)) {
			f.Add(strings.TrimSuffix(line, "\n"))
		}
	}
	ctx := sample()
	f.Fuzz(func(t *testing.T, text string) {
		_, args, err := Resolve(nil, []string{text}, ctx)
		if err == nil && !strings.Contains(text, "{{$") && !strings.Contains(text, "Concat") && !strings.Contains(text, "IfPresent") {
			if len(args) != 1 || args[0] != text {
				t.Fatalf("%q became %q", text, args)
			}
		}
		if _, err := ResolveString(text, ctx); err == nil && !strings.Contains(text, "{{$") {
			return
		}
	})
}

func FuzzCondition(f *testing.F) {
	for _, seed := range []string{
		"inputs.parameter_values['a'] == 'x'", "int(inputs.parameter_values['n']) > 5 && !(true)", "'int(inputs.parameter_values['n'])' == '5'",
		"parseJson(inputs.parameter_values['j'])['k'] in [1, 2]", "inputs.parameters['n'].int_value < 3", "[1].map(x, x * 2).size() > 0", "has(inputs.parameter_values.a)",
	} {
		f.Add(seed)
	}
	params := map[string]any{"a": "x", "n": 5.0, "j": `{"k": 1}`, "l": []any{1.0}}
	f.Fuzz(func(t *testing.T, text string) {
		started := time.Now()
		if _, err := EvalCondition(text, params); err == nil {
			if err := Check(text, nil); err != nil {
				t.Fatalf("evaluates, but does not check: %v", err)
			}
		}
		_, _ = Select(text, map[string]any{"k": 1.0})
		if took := time.Since(started); took > 10*time.Second {
			t.Fatalf("took %s", took)
		}
	})
}
