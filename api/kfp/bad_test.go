package kfp

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/skiff-ml/skiff/api/problem"
)

var update = flag.Bool("update", false, "write what is got into the golden files")

// TestBadInput hands in one broken package, or broken parameters, after the
// other and holds the whole refusal against the golden text: line, field, what
// was expected and what to do.
func TestBadInput(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 40 {
		t.Fatalf("found %d cases, want 40 at least", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sections := map[string]string{}
			for _, section := range archive.Files[1:] {
				sections[section.Name] = string(section.Data)
			}
			refused := door(archive.Files[0].Name, archive.Files[0].Data, strings.Fields(sections["parameters"]))
			if refused == nil {
				t.Fatal("accepted, want a refusal")
			}
			if !errors.Is(refused, problem.ErrInvalid) {
				t.Errorf("%v is not an ErrInvalid", refused)
			}
			got := refused.Error() + "\n"
			if *update {
				archive.Files[len(archive.Files)-1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(sections["want"], got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// door does what is done with a package before anything starts.
func door(file string, data []byte, arguments []string) error {
	pkg, err := Load(file, data, Limits{})
	if err != nil {
		return err
	}
	if problems := Validate(pkg, Checks{}); len(problems) > 0 {
		return problems
	}
	given := map[string]json.RawMessage{}
	for _, argument := range arguments {
		name, text, _ := strings.Cut(argument, "=")
		def := pkg.Spec.Root.InputDefinitions.Parameters[name]
		if def == nil {
			def = &InputParameterDef{ParameterType: ParameterString}
		}
		value, err := ParseArgument(def.Type(), text)
		if err != nil {
			return problem.List{{Field: "parameters." + name, Err: err}}
		}
		if given[name], err = json.Marshal(value); err != nil {
			return err
		}
	}
	_, problems := ResolveInputs(pkg.Spec.Root.InputDefinitions, given)
	return problems.OrNil()
}
