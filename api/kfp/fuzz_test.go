package kfp

import (
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/skiff-ml/skiff/api/problem"
)

// FuzzLoad holds that any bytes are either refused as a problem.List or make a
// package that validates without a panic and survives being stored.
func FuzzLoad(f *testing.F) {
	cases, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range cases {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(archive.Files[0].Data) < 8<<10 {
			f.Add(archive.Files[0].Data)
		}
	}
	f.Add(zipped(f, entry{name: "pipeline.yaml", text: example(f)}))
	f.Add(tarred(f, entry{name: "pipeline.yaml", text: example(f)}))
	f.Add([]byte(`{"pipelineSpec": {"pipelineInfo": {"name": "x"}, "root": {"dag": {}}}, "runtimeConfig": {"parameterValues": {"a": [1, {"b": null}]}}}`))
	f.Add([]byte("a: &a [*a]\n<<: *a"))
	limits := Limits{MaxBytes: 64 << 10, MaxNodes: 5000}
	f.Fuzz(func(t *testing.T, data []byte) {
		pkg, err := Load("fuzz", data, limits)
		if err != nil {
			var list problem.List
			if !errors.As(err, &list) || len(list) == 0 || !errors.Is(err, problem.ErrInvalid) {
				t.Fatalf("%T: %v is not a list of problems", err, err)
			}
			return
		}
		problems := Validate(pkg, Checks{Limits: limits})
		spec, platform, err := pkg.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		if len(problems) > 0 {
			return
		}
		again, err := Decode(spec, platform)
		if err != nil {
			t.Fatal(err)
		}
		spec2, _, err := again.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		if string(spec) != string(spec2) {
			t.Fatalf("the canonical form changes:\n%s\n%s", spec, spec2)
		}
		if more := Validate(again, Checks{Limits: limits}); len(more) > 0 {
			t.Fatalf("valid before it was stored, then: %v", more)
		}
		if values, problems := ResolveInputs(pkg.Spec.Root.InputDefinitions, pkg.Parameters); len(problems) == 0 && len(values) > len(pkg.Spec.Root.InputDefinitions.Parameters) {
			t.Fatalf("more values than inputs: %v", values)
		}
	})
}

// FuzzTemplate holds that a template's parts are the text again.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		"", "{{$}}", "a {{$.inputs.parameters['x']}} b", "{{$.inputs.artifacts[\"x\"].metadata['k']}}", "{{$.outputs.artifacts['x'].path}}/y",
		"{{$", "{{$.", "{{$.inputs", "{{$.inputs.parameters['x'", "{{ x }}", "{{$x}}", "{{$.pipeline_job_name}}{{$}}", "}}{{$.a[0].b}}",
		`{"Concat": ["a", {"IfPresent": {"InputName": "x", "Then": "b"}}]}`, `{"IfPresent": {"InputName": "x", "Then": ["b", {"Concat": []}], "Else": null}}`,
		"{{$.json_escape[1]}}", "from kfp import dsl\n{{$.nonsense}}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var b strings.Builder
		for _, segment := range ParseTemplate(text) {
			if p := segment.Placeholder; p != nil && p.Kind != PlaceholderUnknown {
				b.WriteString(p.Text)
			} else if p != nil {
				return // a broken placeholder's text is shortened for the message
			}
			b.WriteString(segment.Literal)
		}
		if b.String() != text {
			t.Fatalf("%q became %q", text, b.String())
		}
		if argument, err := ParseArgumentTemplate(text); err == nil {
			argument.Walk(func(*Placeholder) {}, func(string) {})
		}
	})
}

// FuzzValues holds that what is parsed by a type is of that type.
func FuzzValues(f *testing.F) {
	for _, seed := range []string{"", "1", "-1.5", "1e3", ".5", "true", "True", "null", `"x"`, "[1, 2]", `{"a": 1}`, "NaN", "9007199254740993", "1 2", "[[[["} {
		f.Add(seed)
	}
	types := []ParameterType{ParameterDouble, ParameterInteger, ParameterString, ParameterBoolean, ParameterList, ParameterStruct}
	f.Fuzz(func(t *testing.T, text string) {
		for _, declared := range types {
			value, err := ParseArgument(declared, text)
			if err != nil {
				continue
			}
			again, err := CoerceParameter(declared, value)
			if err != nil || !reflect.DeepEqual(value, again) {
				t.Fatalf("%s %q: %v became %v, %v", declared, text, value, again, err)
			}
			if n, isNumber := value.(float64); isNumber && (math.IsNaN(n) || math.IsInf(n, 0)) {
				t.Fatalf("%q is %v", text, n)
			}
			if _, err := JSONText(value); err != nil {
				t.Fatal(err)
			}
			written, err := ValueText(value)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := ParseArgument(declared, written); err != nil || !reflect.DeepEqual(value, back) {
				t.Fatalf("%s: %v was written as %q and read as %v, %v", declared, value, written, back, err)
			}
		}
		if output, err := ParseExecutorOutput([]byte(text)); err == nil && output == nil {
			t.Fatal("neither an output nor an error")
		}
		if d, err := ParseDuration(text); err == nil {
			if back, err := ParseDuration(d.String()); err != nil || back != d {
				t.Fatalf("duration %q: %v became %v, %v", text, d, back, err)
			}
		}
	})
}
