package corpus

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const publicDir = "../../../shared/conformance/kfp"

func load(t *testing.T) []Pipeline {
	t.Helper()
	pipelines, err := Load(".")
	if err != nil {
		t.Fatal(err)
	}
	return pipelines
}

// Every compiled file has expectations, and every expectation a file.
func TestEveryFileIsExpected(t *testing.T) {
	expected := map[string]int{}
	for _, p := range load(t) {
		expected[p.File]++
	}
	var found []string
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !packaged.MatchString(path) || entry.Name() == "expect.yaml" {
			return err
		}
		found = append(found, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 100 {
		t.Errorf("only %d files found", len(found))
	}
	for _, path := range found {
		if expected[path] != 1 {
			t.Errorf("%s is described %d times", path, expected[path])
		}
		delete(expected, path)
	}
	for path := range expected {
		t.Errorf("%s is described and not there", path)
	}
}

var packaged = regexp.MustCompile(`\.(yaml|json|zip|tgz|tar\.gz)$`)

// The features that the corpus must have, each at least once: those of the
// format, as the reference lists them.
func TestFeaturesAreCovered(t *testing.T) {
	wanted := strings.Fields(`form-yaml form-json form-snake-case form-pipeline-job form-two-documents
		form-archive bare-component condition oneof-param oneof-artifact cel sub-dag dag-output dependent-tasks
		param-iterator iter-raw iter-input nested-loop parallelism-limit artifact-iterator collected
		artifact-list expr-selector exit-handler task-final-status all-upstream-completed
		ignore-upstream-failure retry cache cache-key param-types default-values optional-param literals
		deprecated-types constants f-string pipeline-placeholders artifact-types artifact-metadata metrics
		classification-metrics custom-type optional-artifact custom-path embedded-artifact pythonic-artifact
		container-component env resources dynamic-resources accelerator image-placeholder image-entrypoint
		executor-input ifpresent concat uri-placeholder metadata-placeholder importer importer-metadata
		importer-reimport model-car resolver custom-job workspace workspace-import notebook task-config timeout packages display-name
		kubernetes-platform secret-env secret-volume config-map volume-claim ephemeral-volume empty-dir shared-memory
		pod-metadata field-path image-pull placement security-context init-container sidecar validation failure logs sdk-version`)
	have := map[string]bool{}
	for _, p := range load(t) {
		for _, feature := range p.Features {
			have[feature] = true
		}
	}
	for _, feature := range wanted {
		if !have[feature] {
			t.Errorf("no pipeline has feature %q", feature)
		}
	}
}

// spec is the part of a compiled pipeline that task paths are checked against.
type spec struct {
	Components map[string]component `json:"components"`
	Root       component            `json:"root"`
}

type component struct {
	DAG *struct {
		Tasks map[string]struct {
			ComponentRef struct {
				Name string `json:"name"`
			} `json:"componentRef"`
			ParameterIterator json.RawMessage `json:"parameterIterator"`
			ArtifactIterator  json.RawMessage `json:"artifactIterator"`
		} `json:"tasks"`
	} `json:"dag"`
	OutputDefinitions struct {
		Parameters map[string]json.RawMessage `json:"parameters"`
		Artifacts  map[string]json.RawMessage `json:"artifacts"`
	} `json:"outputDefinitions"`
	InputDefinitions struct {
		Parameters map[string]json.RawMessage `json:"parameters"`
	} `json:"inputDefinitions"`
}

// check says what is wrong with a task's path.
func (s spec) check(path string) error {
	at := s.Root
	parts := strings.Split(path, "/")
	for i := 0; i < len(parts); i++ {
		if at.DAG == nil {
			return fmt.Errorf("%s has no tasks", strings.Join(parts[:i], "/"))
		}
		task, ok := at.DAG.Tasks[parts[i]]
		if !ok {
			return fmt.Errorf("no task %s", strings.Join(parts[:i+1], "/"))
		}
		at = s.Components[task.ComponentRef.Name]
		loop := task.ParameterIterator != nil || task.ArtifactIterator != nil
		if loop && i+1 < len(parts) {
			i++
			if strings.Trim(parts[i], "0123456789") != "" {
				return fmt.Errorf("%s is a loop: a pass's index must follow", strings.Join(parts[:i], "/"))
			}
		}
	}
	return nil
}

// What is expected names tasks, outputs and inputs that the pipeline has.
func TestExpectationsFitThePipelines(t *testing.T) {
	for _, p := range load(t) {
		if !strings.HasSuffix(p.File, ".yaml") || strings.HasPrefix(p.Name, "forms/") {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			data, err := os.ReadFile(p.File)
			if err != nil {
				t.Fatal(err)
			}
			// The second document, where there is one, is the platform's.
			first, _, _ := strings.Cut(string(data), "\n---\n")
			var s spec
			if err := yaml.Unmarshal([]byte(first), &s); err != nil {
				t.Fatal(err)
			}
			for _, c := range p.Cases {
				fits(t, s, c.Name, c.Expect)
				if c.Again != nil {
					fits(t, s, c.Name+" again", c.Again.Expect)
				}
			}
		})
	}
}

func fits(t *testing.T, s spec, name string, e Expect) {
	t.Helper()
	for path := range e.Tasks {
		if err := s.check(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for path := range e.Logs {
		if err := s.check(path); err != nil {
			t.Errorf("%s: logs: %v", name, err)
		}
	}
	for output := range e.Artifacts {
		if _, ok := s.Root.OutputDefinitions.Artifacts[output]; !ok {
			t.Errorf("%s: no output artifact %s", name, output)
		}
	}
	if len(e.Outputs) > 0 {
		want, have := keys(e.Outputs), keys(s.Root.OutputDefinitions.Parameters)
		if diff := cmp.Diff(have, want); diff != "" {
			t.Errorf("%s: outputs (-pipeline +expected):\n%s", name, diff)
		}
	}
	if e.State == Refused {
		return
	}
	for input := range e.Parameters {
		if _, ok := s.Root.InputDefinitions.Parameters[input]; !ok {
			t.Errorf("%s: no input %s", name, input)
		}
	}
}

func keys[V any](m map[string]V) map[string]bool {
	set := map[string]bool{}
	for key := range m {
		set[key] = true
	}
	return set
}

func TestMistakesAreErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown field", "- {file: p.yaml, cases: [{outputz: {}}]}", "outputz"},
		{"unknown task field", "- {file: p.yaml, cases: [{tasks: {a: {stat: FAILED}}}]}", "stat"},
		{"unknown state", "- {file: p.yaml, cases: [{state: DONE}]}", "DONE"},
		{"unknown task state", "- {file: p.yaml, cases: [{tasks: {a: DONE}}]}", "DONE"},
		{"unknown need", "- {file: p.yaml, cases: [{needs: [luck]}]}", "luck"},
		{"unknown runtime", "- {file: p.yaml, cases: [{runtimes: [mainframe]}]}", "mainframe"},
		{"no cases", "- {file: p.yaml}", "no cases"},
		{"no such file", "- {file: q.yaml, cases: [{}]}", "q.yaml"},
		{"two cases, one name", "- {file: p.yaml, cases: [{}, {}]}", "name of its own"},
		{"refusal with outputs", "- {file: p.yaml, cases: [{state: REFUSED, message: x, outputs: {a: 1}}]}", "message alone"},
		{"message that is no expression", "- {file: p.yaml, cases: [{message: '('}]}", "missing closing"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{"p.yaml": "{}", "expect.yaml": test.text} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// The index's grammar, held by rows of each kind, so that it is tested where the
// public corpus is not at hand.
func TestPublicIndex(t *testing.T) {
	dir := t.TempDir()
	index := "# Corpus\n\ntext | with a bar\n\n" +
		"| file | features | tasks/depth | needs | inputs | expected |\n|---|---|---|---|---|---|\n" +
		"| a.yaml | basic | 1/1 | offline: dev python image | `{\"a\": 5, \"b\": [1]}` | SUCCEEDED; Output=10 |\n" +
		"| b.yaml | condition, sub-dag | 2/2 | offline: dev python + busybox-type image | `{}` | SUCCEEDED; root Output in {heads,tails} path-dependent |\n" +
		"| c.yaml | k8s:secretAsEnv | 1/1 | offline + skiff secret/configmap/volume objects | `{}` | SUCCEEDED (repo e2e) |\n" +
		"| d.yaml | accelerator, resources | 1/1 | extra wheels: pandas==2.2.0 | `{}` | SUCCEEDED; Output=[{\"k\":\"v\"}] only if lucky |\n" +
		"| e.yaml | basic | 1/1 | offline: dev python image | `{}` | FAILED (repo e2e) |\n" +
		"| f.yaml, g.yaml | upload validation | - | - | - | upload refused |\n"
	files := map[string]string{"INDEX.md": index}
	for name := range strings.FieldsSeq("a b c d e f g") {
		files[name+".yaml"] = ""
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pipelines, err := LoadPublic(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pipelines {
		c := p.Cases[0]
		parameters, _ := json.Marshal(c.Parameters)
		outputs, _ := json.Marshal(c.Outputs)
		oneOf, _ := json.Marshal(c.OneOf)
		got = append(got, fmt.Sprint(p.Name, " ", c.State, " ", c.Needs, " ", string(parameters), " ", string(outputs), " ", string(oneOf)))
	}
	want := []string{
		`public/a.yaml SUCCEEDED [] {"a":5,"b":[1]} {"Output":10} null`,
		`public/b.yaml SUCCEEDED [shell] {} null {"Output":["heads","tails"]}`,
		`public/c.yaml SUCCEEDED [platform] {} null null`,
		`public/d.yaml SUCCEEDED [wheels fake-gpu fake-node] {} {"Output":[{"k":"v"}]} null`,
		`public/e.yaml FAILED [] {} null null`,
		`public/f.yaml REFUSED [] null null null`,
		`public/g.yaml REFUSED [] null null null`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPublicIndexMistakes(t *testing.T) {
	for name, row := range map[string]string{
		"cells":       "| a.yaml | basic | 1/1 |",
		"need":        "| a.yaml | basic | 1/1 | the moon | `{}` | SUCCEEDED |",
		"inputs":      "| a.yaml | basic | 1/1 | - | `{a}` | SUCCEEDED |",
		"expectation": "| a.yaml | basic | 1/1 | - | `{}` | perhaps |",
		"output":      "| a.yaml | basic | 1/1 | - | `{}` | SUCCEEDED; Output={ |",
		"file":        "| b.yaml | basic | 1/1 | - | `{}` | SUCCEEDED |",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{"INDEX.md": row, "a.yaml": ""} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := LoadPublic(dir); err == nil {
				t.Error("no error")
			}
		})
	}
	if pipelines, err := LoadPublic(t.TempDir()); err != nil || pipelines != nil {
		t.Errorf("a folder without an index gave %v, %v", pipelines, err)
	}
}

// Where the public corpus is at hand, no file of it is left out.
func TestPublicCorpusIsWhole(t *testing.T) {
	pipelines, err := LoadPublic(publicDir)
	if err != nil {
		t.Fatal(err)
	}
	if pipelines == nil {
		t.Skip("the public corpus is not beside this repository")
	}
	known := map[string]bool{}
	for _, p := range pipelines {
		known[p.File] = true
	}
	err = filepath.WalkDir(publicDir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != "INDEX.md" && !known[path] {
			t.Errorf("%s is in no row", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pipelines) < 100 {
		t.Errorf("only %d pipelines", len(pipelines))
	}
}

// The archives hold what their names promise, whatever wrote them.
func TestArchives(t *testing.T) {
	for file, want := range map[string][]string{
		"forms/several.zip":   {"other.yaml", "pipeline.yaml"},
		"forms/single.zip":    {"notes.txt", "my-form.yaml"},
		"forms/ambiguous.zip": {"a.yaml", "b.yaml"},
		"forms/climbing.zip":  {"../../climbed.yaml"},
		"forms/empty.zip":     nil,
	} {
		// An insecure path is what climbing.zip is for; the archive opens all the same.
		archive, err := zip.OpenReader(file)
		if archive == nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range archive.File {
			got = append(got, f.Name)
		}
		if err := archive.Close(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}
