package kfp

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// example is the pipeline that the cases of bad input are variations of.
func example(t testing.TB) string {
	t.Helper()
	archive, err := txtar.ParseFile("testdata/bad/parameter_undeclared.txtar")
	if err != nil {
		t.Fatal(err)
	}
	return string(archive.Files[0].Data)
}

type entry struct {
	name, text string
	link       bool
}

func zipped(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		header := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		header.SetMode(0o644)
		if e.link {
			header.SetMode(0o777 | os.ModeSymlink)
		}
		f, err := w.CreateHeader(header)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarred(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	compressed := gzip.NewWriter(&b)
	w := tar.NewWriter(compressed)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.text)), Typeflag: tar.TypeReg}
		if e.link {
			header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, e.text, 0
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if !e.link {
			if _, err := w.Write([]byte(e.text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := compressed.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// canonical is what a package comes to, for comparing forms.
func canonical(t testing.TB, file string, data []byte) string {
	t.Helper()
	pkg, err := Load(file, data, Limits{})
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if problems := Validate(pkg, Checks{}); len(problems) > 0 {
		t.Fatalf("%s: %v", file, problems)
	}
	spec, platform, err := pkg.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return string(spec) + string(platform)
}

// snaked turns every field's name into snake_case, and leaves the keys of maps.
func snaked(value any, userKeys bool) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, item := range v {
			name := key
			if !userKeys {
				name = snake(key)
			}
			inner := !userKeys && map[string]bool{"components": true, "executors": true, "parameters": true, "artifacts": true, "tasks": true, "defaultValue": true}[key]
			out[name] = snaked(item, inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = snaked(item, false)
		}
		return out
	}
	return value
}

func TestFormsOfOnePipeline(t *testing.T) {
	text := example(t)
	want := canonical(t, "pipeline.yaml", []byte(text))
	asJSON, err := json.MarshalIndent(json.RawMessage(want), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal([]byte(want), &tree); err != nil {
		t.Fatal(err)
	}
	snakes, err := json.Marshal(snaked(tree, false))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(snakes, []byte(`"pipeline_info"`)) || !bytes.Contains(snakes, []byte(`"producer_task"`)) {
		t.Fatalf("the snake_case form is not one: %s", snakes)
	}
	indented := "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
	notes := entry{name: "README.txt", text: "notes"}
	for name, data := range map[string][]byte{
		"pipeline.json":        asJSON,
		"snake.json":           snakes,
		"other-name":           []byte(text),
		"bom.yaml":             []byte("\xef\xbb\xbf" + text),
		"crlf.yaml":            []byte(strings.ReplaceAll(text, "\n", "\r\n")),
		"trailing.yaml":        []byte("---\n" + text + "---\n"),
		"job.yaml":             []byte("displayName: a job\nlabels: {a: b}\npipelineSpec:\n" + indented + "runtimeConfig:\n  parameterValues: {rows: 7}\n"),
		"wrapped.yaml":         []byte("pipeline_spec:\n" + indented),
		"manifest.yaml":        []byte("apiVersion: pipelines.kubeflow.org/v2beta1\nkind: Pipeline\nmetadata: {name: x}\n---\napiVersion: pipelines.kubeflow.org/v2beta1\nkind: PipelineVersion\nmetadata: {name: x-1}\nspec:\n  pipelineName: x\n  pipelineSpec:\n    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"),
		"one.zip":              zipped(t, notes, entry{name: "some.yml", text: text}),
		"named.zip":            zipped(t, entry{name: "a.yaml", text: "x: y"}, entry{name: "sub/pipeline.yaml", text: text}, entry{name: "__MACOSX/._b.yaml", text: "\x00"}),
		"nested.zip":           zipped(t, entry{name: "old/pipeline.yaml", text: "x: y"}, entry{name: "pipeline.yaml", text: text}),
		"one.tar.gz":           tarred(t, notes, entry{name: "./some.yaml", text: text}),
		"named.tgz":            tarred(t, entry{name: "a.yaml", text: "x: y"}, entry{name: "pipeline.yaml", text: text}),
		"zip-without-a-suffix": zipped(t, entry{name: "pipeline.yaml", text: text}),
	} {
		if diff := cmp.Diff(want, canonical(t, name, data)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestPlatformForms(t *testing.T) {
	text := example(t)
	settings := "platforms:\n  kubernetes:\n    deploymentSpec:\n      executors:\n        exec-train:\n          activeDeadlineSeconds: \"60\"\n          podMetadata: {labels: {snake_key: v, camelKey: w}}\n    pipelineConfig:\n      workspace: {size: 1Gi}\n"
	want := canonical(t, "two.yaml", []byte(text+"---\n"+settings))
	indent := func(s string) string { return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ") + "\n" }
	for name, data := range map[string]string{
		"reversed.yaml": settings + "---\n" + text,
		"wrapped.yaml":  "pipeline_spec:\n" + indent(text) + "platform_spec:\n" + indent(settings),
		"snake.yaml":    text + "---\n" + strings.NewReplacer("deploymentSpec", "deployment_spec", "activeDeadlineSeconds", "active_deadline_seconds", "podMetadata", "pod_metadata").Replace(settings),
	} {
		if diff := cmp.Diff(want, canonical(t, name, []byte(data))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	pkg, err := Load("two.yaml", []byte(text+"---\n"+settings), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	config := pkg.Platform.Executor("exec-train")
	if diff := cmp.Diff(map[string]string{"snake_key": "v", "camelKey": "w"}, config.PodMetadata.Labels); diff != "" {
		t.Errorf("the user's own keys changed: %s", diff)
	}
	if diff := cmp.Diff([]string{"podMetadata", "activeDeadlineSeconds"}, PlatformFeatures(config)); diff != "" {
		t.Error(diff)
	}
	if pkg.Platform.Workspace().Size != "1Gi" || pkg.Platform.Executor("none") != nil {
		t.Errorf("got %+v", pkg.Platform)
	}
	var none *KubernetesPlatform
	if none.Executor("x") != nil || none.Workspace() != nil || none.ActiveDeadlineSeconds() != 0 || PlatformFeatures(nil) != nil {
		t.Error("an absent platform has settings")
	}
}

func TestJobBringsParameters(t *testing.T) {
	indented := "  " + strings.ReplaceAll(strings.TrimSpace(example(t)), "\n", "\n  ") + "\n"
	pkg, err := Load("job.yaml", []byte("pipelineSpec:\n"+indented+"runtimeConfig:\n  gcsOutputDirectory: minio://b/r\n  parameters: {rate: {doubleValue: 0.5}}\n  parameterValues: {rows: 7}\n"), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]json.RawMessage{"rate": []byte("0.5"), "rows": []byte("7")}, pkg.Parameters); diff != "" {
		t.Error(diff)
	}
	if pkg.Spec.DefaultPipelineRoot != "minio://b/r" {
		t.Errorf("root %q", pkg.Spec.DefaultPipelineRoot)
	}
}

func TestDeprecatedForms(t *testing.T) {
	pkg, err := Load("old.yaml", []byte(`
pipelineInfo: {name: old}
schemaVersion: 2.0.0
components:
  c:
    executorLabel: e
    inputDefinitions: {parameters: {a: {type: INT}, b: {type: DOUBLE}, c: {type: 3}}}
    outputDefinitions: {artifacts: {o: {artifactType: {schemaTitle: system.Model}, properties: {p: {constantValue: {stringValue: x}}}, customProperties: {q: {constant: 2}}, metadata: {q: 1}}}}
deploymentSpec:
  executors:
    e: {container: {image: python, resources: {cpuLimit: "2", accelerator: {type: tpu, count: "4"}}}}
root:
  dag:
    tasks:
      t:
        componentRef: {name: c}
        retryPolicy: {backoffDuration: 1.5s}
        inputs: {parameters: {a: {runtimeValue: {constantValue: {intValue: "5"}}}, b: {runtimeValue: {constantValue: {doubleValue: 0.5}}}, c: {runtimeValue: {constantValue: {stringValue: s}}}}}
`), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if problems := Validate(pkg, Checks{}); len(problems) > 0 {
		t.Fatal(problems)
	}
	task, component := pkg.Spec.Root.Dag.Tasks["t"], pkg.Spec.Components["c"]
	var got []any
	for _, name := range []string{"a", "b", "c"} {
		got = append(got, task.Inputs.Parameters[name].RuntimeValue.Constant, component.InputDefinitions.Parameters[name].ParameterType)
	}
	want := []any{5.0, ParameterInteger, 0.5, ParameterDouble, "s", ParameterString}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"p": "x", "q": 1.0}, component.OutputDefinitions.Artifacts["o"].Metadata); diff != "" {
		t.Error(diff)
	}
	if d := task.RetryPolicy.BackoffDuration; d.Duration().Milliseconds() != 1500 || d.String() != "1.5s" {
		t.Errorf("duration %v", d)
	}
}

func TestArchivesRefused(t *testing.T) {
	text := example(t)
	ok := entry{name: "pipeline.yaml", text: text}
	var many []entry
	for i := range DefaultMaxEntries + 1 {
		many = append(many, entry{name: fmt.Sprintf("f%d.txt", i)})
	}
	plainTar := func() []byte {
		r, err := gzip.NewReader(bytes.NewReader(tarred(t, ok)))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}()
	gzipOf := func(data []byte) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"slip.zip", zipped(t, ok, entry{name: "../../etc/cron.d/x", text: "x"}), `entry "../../etc/cron.d/x" leads out of the archive`},
		{"inner.zip", zipped(t, ok, entry{name: "a/../../b", text: "x"}), "leads out of the archive"},
		{"absolute.zip", zipped(t, entry{name: "/etc/passwd", text: "x"}), "does not have a plain relative path"},
		{"windows.zip", zipped(t, entry{name: `..\x.yaml`, text: "x"}), "does not have a plain relative path"},
		{"link.zip", zipped(t, entry{name: "pipeline.yaml", text: "/etc/passwd", link: true}), "is a symbolic link"},
		{"slip.tar.gz", tarred(t, ok, entry{name: "../x", text: "x"}), "leads out of the archive"},
		{"link.tar.gz", tarred(t, entry{name: "pipeline.yaml", text: "/etc/passwd", link: true}), "is a symbolic link"},
		{"none.zip", zipped(t, entry{name: "a.txt"}), "holds no YAML file"},
		{"none.tgz", tarred(t, entry{name: "a.txt"}), "holds no YAML file"},
		{"two.zip", zipped(t, entry{name: "a.yaml", text: text}, entry{name: "b.yaml", text: text}), "holds 2 YAML files and none is called pipeline.yaml"},
		{"two.tgz", tarred(t, entry{name: "a.yaml", text: text}, entry{name: "b.yaml", text: text}), "holds 2 YAML files"},
		{"many.zip", zipped(t, many...), "1001 entries"},
		{"many.tgz", tarred(t, many...), "more than 1000 entries"},
		{"cut.zip", zipped(t, ok)[:200], "read the zip archive"},
		{"cut.tgz", tarred(t, ok)[:300], "read"},
		{"text.zip", []byte(text), "the name says an archive"},
		{"plain.tar", plainTar, "a tar archive that is not compressed"},
		{"plain.gz", gzipOf([]byte(text)), "holds no tar archive"},
		{"latin1.yaml", []byte("pipelineInfo:\n  name: caf\xe9\n"), "line 2: the text is not UTF-8 (byte 0xe9)"},
		{"utf16.yaml", []byte("\xff\xfep\x00i\x00"), "not UTF-8"},
		{"large.tgz", tarred(t, entry{name: "data.bin", text: strings.Repeat("\x00", 9<<20)}, ok), "more than 8388608 bytes when unpacked"},
		{"large.zip", zipped(t, entry{name: "pipeline.yaml", text: strings.Repeat(" ", 2<<20)}), "has more than 1048576 bytes when unpacked"},
		{"large.yaml", bytes.Repeat([]byte(" "), 2<<20), "the file has 2097152 bytes, at most 1048576 are read"},
		{"zero", nil, "the file is empty"},
		{"binary", []byte("\x7fELF\x02\x01\x01\x00"), "not valid YAML"},
	} {
		_, err := Load(tc.name, tc.data, Limits{MaxBytes: 1 << 20})
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), tc.name) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestHostileDocumentsAreBounded hands in what is made to exhaust memory or
// time, and measures what it cost.
func TestHostileDocumentsAreBounded(t *testing.T) {
	repeated := func(text string, size int) []byte { return []byte(strings.Repeat(text, size/len(text))) }
	numbered := func(format string, count int) []byte {
		var b bytes.Buffer
		for i := range count {
			fmt.Fprintf(&b, format, i)
		}
		return b.Bytes()
	}
	laughs := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'p'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	merges := "    a: &a {k: v}\n"
	for c := 'b'; c <= 'p'; c++ {
		merges += fmt.Sprintf("    %c: &%c {<<: [%s]}\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	big := strings.Repeat("x", 1<<20)
	for name, data := range map[string][]byte{
		"laughs":        []byte("runtimeConfig:\n  parameterValues:\n    " + strings.ReplaceAll(laughs, "\n", "\n    ") + "\npipelineSpec: {}\n"),
		"long text":     []byte("pipelineSpec: {}\nruntimeConfig: {parameterValues: {a: &a " + big + ", b: [" + strings.Repeat("*a,", 10000) + "]}}\n"),
		"merges":        []byte("pipelineSpec: {}\nruntimeConfig:\n  parameterValues:\n" + merges + "labels: {<<: *p}\n"),
		"brackets":      repeated("[", 16<<20),
		"dashes":        repeated("- ", 16<<20),
		"json brackets": append([]byte(`{"a":`), repeated("[", 300_000)...),
		"list":          repeated("- a\n", 1_500_000),
		"keys":          numbered("k%d: v\n", 200_000),
		"components":    append([]byte("components:\n"), numbered(" k%d: {x: y}\n", 120_000)...),
		"documents":     repeated("---\n", 16<<20),
		"comments":      repeated("# c\n", 8<<20),
		"spaces":        repeated(" ", 8<<20),
		"too large":     repeated("a", 64<<20),
		"zip of zeros":  zipped(t, entry{name: "pipeline.yaml", text: strings.Repeat("\x00", 40<<20)}),
		"tar of zeros":  tarred(t, entry{name: "pipeline.yaml", text: strings.Repeat("\x00", 40<<20)}),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Load("x", data, Limits{})
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Fatal("accepted")
			}
			if len(err.Error()) > 40_000 {
				t.Errorf("the refusal has %d bytes", len(err.Error()))
			}
			// Everything allocated on the way, freed or not.
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 256 {
				t.Errorf("took %d MB", used)
			}
		})
	}
}
