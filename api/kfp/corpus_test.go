package kfp

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// corpusFolder is where the published corpus lies beside a checkout, where it
// does; its files are not part of this repository.
const corpusFolder = "../../../shared/conformance/kfp"

func corpus(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(corpusFolder, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	})
	if os.IsNotExist(err) {
		t.Skip("the public corpus is not beside this checkout")
	}
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCorpusLoads(t *testing.T) {
	for _, file := range corpus(t) {
		t.Run(strings.TrimPrefix(file, corpusFolder+"/"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pkg, err := Load(filepath.Base(file), data, Limits{})
			if strings.Contains(file, "/invalid/") && !strings.HasSuffix(file, "no_name.yaml") {
				if err == nil {
					t.Fatal("loaded, want it refused")
				}
				t.Log(err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			problems := Validate(pkg, Checks{})
			if strings.HasSuffix(file, "no_name.yaml") {
				if len(problems) != 1 || problems[0].Field != "pipelineInfo.name" || problems[0].Line != 16 {
					t.Errorf("got %v, want the missing name alone", problems)
				}
			} else if len(problems) > 0 {
				t.Errorf("refused: %v", problems)
			}
			spec, platform, err := pkg.Canonical()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Decode(spec, platform)
			if err != nil {
				t.Fatal(err)
			}
			spec2, platform2, err := again.Canonical()
			if err != nil {
				t.Fatal(err)
			}
			if string(spec) != string(spec2) || string(platform) != string(platform2) {
				t.Error("the canonical form changes when it is read back")
			}
		})
	}
}

var inputsColumn = regexp.MustCompile("^\\| ([^ ]+\\.(?:yaml|json)) \\|.*\\| `(\\{.*\\})` \\|")

// TestCorpusInputs resolves the inputs that the corpus's index gives for each
// of its pipelines.
func TestCorpusInputs(t *testing.T) {
	corpus(t)
	index, err := os.ReadFile(filepath.Join(corpusFolder, "INDEX.md"))
	if err != nil {
		t.Fatal(err)
	}
	resolved := 0
	for line := range strings.Lines(string(index)) {
		match := inputsColumn.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		var given map[string]json.RawMessage
		if err := json.Unmarshal([]byte(match[2]), &given); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(corpusFolder, match[1]))
		if err != nil {
			t.Fatal(err)
		}
		pkg, err := Load(match[1], data, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if _, problems := ResolveInputs(pkg.Spec.Root.InputDefinitions, given); len(problems) > 0 {
			t.Errorf("%s: %v", match[1], problems)
		}
		resolved++
	}
	if resolved < 100 {
		t.Errorf("resolved the inputs of %d pipelines, want 100 at least", resolved)
	}
}
