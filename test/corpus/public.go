package corpus

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// SharedPath stands in a public case's parameters for a folder that the test
// makes and that outlives each attempt of a task.
const SharedPath = "<shared path>"

// LoadPublic reads the index of the public corpus in dir (INDEX.md, one table
// row for each file). A folder that is not there gives none and no error; a row
// that cannot be understood is an error, so that no file is left out silently.
func LoadPublic(dir string) ([]Pipeline, error) {
	index, err := os.ReadFile(filepath.Join(dir, "INDEX.md"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Pipeline
	for number, line := range strings.Split(string(index), "\n") {
		cells, ok := tableRow(line)
		if !ok {
			continue
		}
		pipelines, err := publicRow(dir, cells)
		if err != nil {
			return nil, fmt.Errorf("index line %d: %w", number+1, err)
		}
		all = append(all, pipelines...)
	}
	return append(all, publicArchive(dir)...), nil
}

// tableRow splits a row of the table into its cells. The heading and the rule
// below it are not rows.
func tableRow(line string) ([]string, bool) {
	line, found := strings.CutPrefix(strings.TrimSpace(line), "|")
	if !found || !strings.HasSuffix(line, "|") {
		return nil, false
	}
	cells := strings.Split(strings.TrimSuffix(line, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	if cells[0] == "file" || strings.Trim(cells[0], "-") == "" {
		return nil, false
	}
	return cells, true
}

// publicRow makes the pipelines of one row: file or files, features, size,
// needs, inputs, expected.
func publicRow(dir string, cells []string) ([]Pipeline, error) {
	if len(cells) != 6 {
		return nil, fmt.Errorf("%d cells where 6 are expected", len(cells))
	}
	features := strings.Split(cells[1], ", ")
	c := Case{Name: "default", Runtimes: []string{Docker, Process}}
	var err error
	if c.Needs, err = publicNeeds(cells[3], features); err != nil {
		return nil, fmt.Errorf("%s: %w", cells[0], err)
	}
	if c.Parameters, err = publicInputs(cells[4]); err != nil {
		return nil, fmt.Errorf("%s: inputs %s: %w", cells[0], cells[4], err)
	}
	if err := publicExpected(&c, cells[5]); err != nil {
		return nil, fmt.Errorf("%s: %w", cells[0], err)
	}
	var pipelines []Pipeline
	for file := range strings.SplitSeq(cells[0], ", ") {
		p := Pipeline{
			File: filepath.Join(dir, file), Name: "public/" + file, Features: features, Public: true,
			Cases: []Case{c},
		}
		if _, err := os.Stat(p.File); err != nil {
			return nil, err
		}
		refine(&p, file)
		pipelines = append(pipelines, p)
	}
	return pipelines, nil
}

// publicNeeds reads the column "needs", and what the features ask of a machine.
func publicNeeds(text string, features []string) ([]string, error) {
	var needs []string
	switch {
	case text == "-" || text == "offline: dev python image":
	case text == "offline: dev python + busybox-type image":
		needs = append(needs, NeedShell)
	case strings.HasPrefix(text, "offline + skiff secret"):
		needs = append(needs, NeedPlatform)
	case strings.HasPrefix(text, "extra wheels"):
		needs = append(needs, NeedWheels)
	case strings.HasPrefix(text, "network service"):
		needs = append(needs, NeedNetwork)
	case text == "parse-only offline" || text == "GCS artifact":
		needs = append(needs, NeedCloud)
	default:
		return nil, fmt.Errorf("unknown need %q", text)
	}
	for _, feature := range features {
		switch {
		case strings.HasPrefix(feature, "k8s:") && !slices.Contains(needs, NeedPlatform):
			needs = append(needs, NeedPlatform)
		case feature == "accelerator":
			needs = append(needs, NeedFakeGPU)
		case feature == "resources":
			needs = append(needs, NeedFakeNode)
		}
	}
	return needs, nil
}

func publicInputs(text string) (map[string]json.RawMessage, error) {
	text = strings.Trim(text, "`")
	if text == "-" || text == "" {
		return nil, nil
	}
	var inputs map[string]json.RawMessage
	err := json.Unmarshal([]byte(text), &inputs)
	return inputs, err
}

var (
	outputIs    = regexp.MustCompile(`\bOutput=`)
	outputOneOf = regexp.MustCompile(`root Output in \{([^}]*)\}`)
)

// publicExpected reads the column "expected", which is prose with a few fixed
// beginnings.
func publicExpected(c *Case, text string) error {
	switch {
	case strings.HasPrefix(text, "upload refused"):
		c.State, c.Message = Refused, "."
	case strings.HasPrefix(text, "SUCCEEDED"), strings.Contains(text, "skiff target SUCCEEDED"),
		strings.HasPrefix(text, "parse OK; each platform field"):
		c.State = Succeeded
	case strings.HasPrefix(text, "FAILED"), strings.HasPrefix(text, "parse + store OK"),
		strings.HasPrefix(text, "needs the artifact"):
		c.State = Failed
	default:
		return fmt.Errorf("unknown expectation %q", text)
	}
	if at := outputIs.FindStringIndex(text); at != nil {
		var value json.RawMessage
		// A decoder stops after the value, whatever prose follows.
		if err := json.NewDecoder(strings.NewReader(text[at[1]:])).Decode(&value); err != nil {
			return fmt.Errorf("output in %q: %w", text, err)
		}
		c.Outputs = map[string]json.RawMessage{"Output": value}
	}
	if match := outputOneOf.FindStringSubmatch(text); match != nil {
		c.OneOf = map[string][]json.RawMessage{}
		for value := range strings.SplitSeq(match[1], ",") {
			quoted, err := json.Marshal(strings.TrimSpace(value))
			if err != nil {
				return err
			}
			c.OneOf["Output"] = append(c.OneOf["Output"], quoted)
		}
	}
	return nil
}

// refine adds what the index says in prose only, and what follows from reading
// the pipeline.
func refine(p *Pipeline, file string) {
	c := &p.Cases[0]
	switch filepath.Base(file) {
	case "local_execution_pipeline_with_retry.yaml":
		// Its attempts count in a file. Attempts share none, so each is the first.
		c.Expect = Expect{
			State:      Failed,
			Parameters: map[string]json.RawMessage{"counter_path": json.RawMessage(`"/tmp/attempts.count"`)},
		}
	case "take_nap_compiled.yaml", "take_nap_pipeline_root_compiled.yaml":
		// By default it sleeps for a quarter of an hour.
		c.Parameters = map[string]json.RawMessage{"naptime_secs": json.RawMessage(`2`)}
	case "flip_coin.yaml":
		c.OneOf = nil // the value meant is a task's; the pipeline itself has no outputs
	case "embedded_artifact.yaml", "pipeline_with_artifact_custom_path.yaml":
		// They call what the version of the SDK that they pin does not have yet.
		c.State, c.Message = Failed, "has no attribute '(EmbeddedInput|set_path)'"
	case "pipeline_with_artifact_upload_download.yaml":
		c.Needs = append(c.Needs, NeedNetwork) // a data set of a public hub
	case "modelcar.yaml", "pipeline_with_concat_placeholder.yaml", "container_io.yaml",
		"container_with_concat_placeholder.yaml", "container_with_placeholder_in_fstring.yaml":
		// An image's own files, busybox's shell, and a program that only an image has.
		c.Runtimes = []string{Docker}
	case "create_pod_metadata_complex.yaml":
		// One of its steps asks for variables that nothing in the file sets, and
		// wants them to be set and empty. The two that ask for metadata get it.
		c.State, c.Message = Failed, "Pod annotation is None"
		c.Tasks = map[string]Task{
			"validate-pod-metadata": {State: Succeeded}, "validate-pod-metadata-2": {State: Succeeded}, "validate-no-pod-metadata": {State: Failed},
		}
	case "local_execution_pipeline_with_ignore_upstream_failure.yaml":
		c.Tasks = map[string]Task{"fail-always": {State: Failed}, "write-marker": {State: Succeeded}}
	case "pipeline_with_task_using_ignore_upstream_failure.yaml":
		c.Tasks = map[string]Task{"fail-op": {State: Failed}, "print-op": {State: Succeeded}}
	case "long-running.yaml":
		// Two sleeps of five minutes, one after the other.
		c.Within = 900
	}
}

// publicArchive is the one package that the index names outside its table: it
// must be taken like the file inside it.
func publicArchive(dir string) []Pipeline {
	file := filepath.Join(dir, "valid", "arguments_parameters.zip")
	if _, err := os.Stat(file); err != nil {
		return nil
	}
	return []Pipeline{{
		File: file, Name: "public/valid/arguments_parameters.zip", Public: true,
		Features: []string{"container-component", "form-archive"},
		Cases: []Case{{
			Name: "default", Runtimes: []string{Docker, Process},
			Expect: Expect{
				State:      Succeeded,
				Parameters: map[string]json.RawMessage{"param2": json.RawMessage(`"there"`)},
				Logs:       map[string]string{"echo": "hello-there"},
			},
		}},
	}}
}
