// Package corpus reads what conformance pipelines must give: this folder's own
// expectation files (their format is in README.md), and the index of the public
// corpus where a copy of that lies beside the repository.
//
// It only reads and checks the descriptions; running them is the end-to-end
// tests' work. It imports nothing of skiff.
package corpus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"sigs.k8s.io/yaml"
)

// The outcomes that a case can name. All but Refused are states of a run.
const (
	Succeeded = "SUCCEEDED"
	Failed    = "FAILED"
	// Refused is a pipeline or parameter that the door turns away: exit code 2,
	// nothing started, nothing written.
	Refused = "REFUSED"
)

// What a case may need beyond the development's Python image.
const (
	// NeedShell is a busybox-type image, NeedJQ one that has jq.
	NeedShell = "shell"
	NeedJQ    = "jq"
	// NeedWheels are packages of the wheelhouse other than kfp.
	NeedWheels = "wheels"
	// NeedFakeNode is a machine larger than this one, NeedFakeGPU one with
	// devices; both can be declared.
	NeedFakeNode = "fake-node"
	NeedFakeGPU  = "fake-gpu"
	// NeedPlatform are Secrets, ConfigMaps or volumes that must exist before.
	NeedPlatform = "platform"
	// NeedNetwork is a service outside the machine, NeedCloud a cloud's image or
	// bucket; runs that need these cannot succeed here.
	NeedNetwork = "network"
	NeedCloud   = "cloud"
)

// Runtimes on which a case may run.
const (
	Docker  = "docker"
	Process = "process"
)

// Pipeline is one file and the cases to run it with.
type Pipeline struct {
	// File is the path of the package; relative to the expectation file in the
	// source, absolute once loaded.
	File     string   `json:"file"`
	Features []string `json:"features,omitempty"`
	Cases    []Case   `json:"cases"`

	// Name tells pipelines apart in a test's output: "flow/retry".
	Name string `json:"-"`
	// Public is true for a file that is not ours.
	Public bool `json:"-"`
}

// Case is one run of a pipeline, and what must come of it.
type Case struct {
	Name     string   `json:"name,omitempty"`
	Needs    []string `json:"needs,omitempty"`
	Runtimes []string `json:"runtimes,omitempty"`
	Expect

	// Again is a second run of the same file in the same state folder.
	Again *Again `json:"again,omitempty"`
}

// Again is what the second run must give.
type Again struct {
	Expect
	// SameOutputs: the outputs are exactly those of the first run.
	SameOutputs bool `json:"same_outputs,omitempty"`
}

// Expect is what is passed to a run and what it must give.
type Expect struct {
	Parameters map[string]json.RawMessage `json:"parameters,omitempty"`
	// State is the run's final state; Succeeded where empty in the source.
	State string `json:"state,omitempty"`
	// Message is a regular expression that the run's or the refusal's text must
	// match: its message and those of its tasks together.
	Message string `json:"message,omitempty"`
	// Outputs are the root's output parameters: all of them, exactly, where any
	// is named. Numbers compare by value.
	Outputs map[string]json.RawMessage `json:"outputs,omitempty"`
	// OneOf lists the values that an output may have, where the run decides.
	OneOf map[string][]json.RawMessage `json:"one_of,omitempty"`
	// Artifacts are root output artifacts; only what is named is compared.
	Artifacts map[string]Artifact `json:"artifacts,omitempty"`
	// Tasks by path; only those named are compared.
	Tasks map[string]Task `json:"tasks,omitempty"`
	// Logs by task path: text that the task's log must contain.
	Logs map[string]string `json:"logs,omitempty"`
	// Within is how many seconds the run may take; 0 for the test's own limit.
	Within int `json:"within,omitempty"`
}

// Artifact is what a root output artifact must be.
type Artifact struct {
	URI      string                     `json:"uri,omitempty"`
	Type     string                     `json:"type,omitempty"`
	Metadata map[string]json.RawMessage `json:"metadata,omitempty"`
}

// Task is what must have become of a task. In the source a bare state stands for
// a Task with nothing else to compare.
type Task struct {
	State    string `json:"state,omitempty"`
	Attempts *int   `json:"attempts,omitempty"`
	ExitCode *int   `json:"exit_code,omitempty"`
	Cached   *bool  `json:"cached,omitempty"`
}

// UnmarshalJSON reads a state or an object; unknown fields are errors.
func (t *Task) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &t.State); err == nil {
		return nil
	}
	type plain Task
	return strict(data, (*plain)(t))
}

// Load reads every expect.yaml below dir, in order of the paths. A mistake in
// one is an error that names the file.
func Load(dir string) ([]Pipeline, error) {
	var all []Pipeline
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() != "expect.yaml" {
			return err
		}
		pipelines, err := loadFile(path)
		if err != nil {
			return fmt.Errorf("read expectations %s: %w", path, err)
		}
		all = append(all, pipelines...)
		return nil
	})
	return all, err
}

func loadFile(path string) ([]Pipeline, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	var pipelines []Pipeline
	if err := strict(asJSON, &pipelines); err != nil {
		return nil, err
	}
	group := filepath.Base(filepath.Dir(path))
	for i := range pipelines {
		p := &pipelines[i]
		p.Name = group + "/" + p.File
		p.File = filepath.Join(filepath.Dir(path), p.File)
		if err := p.finish(); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return pipelines, nil
}

// finish fills in what the source may leave out and checks the rest.
func (p *Pipeline) finish() error {
	if _, err := os.Stat(p.File); err != nil {
		return err
	}
	if len(p.Cases) == 0 {
		return errors.New("no cases")
	}
	names := map[string]bool{}
	for i := range p.Cases {
		c := &p.Cases[i]
		if c.Name == "" && i == 0 {
			c.Name = "default"
		}
		if c.Name == "" || names[c.Name] {
			return fmt.Errorf("case %d needs a name of its own", i+1)
		}
		names[c.Name] = true
		if len(c.Runtimes) == 0 {
			c.Runtimes = []string{Docker, Process}
		}
		if err := c.check(); err != nil {
			return fmt.Errorf("case %q: %w", c.Name, err)
		}
	}
	return nil
}

var (
	knownNeeds = []string{
		NeedShell, NeedJQ, NeedWheels, NeedFakeNode, NeedFakeGPU, NeedPlatform, NeedNetwork, NeedCloud,
	}
	knownStates     = []string{Succeeded, Failed, Refused}
	knownTaskStates = []string{Succeeded, Failed, "SKIPPED", "CANCELED", ""}
)

func (c *Case) check() error {
	for _, need := range c.Needs {
		if !slices.Contains(knownNeeds, need) {
			return fmt.Errorf("unknown need %q", need)
		}
	}
	for _, name := range c.Runtimes {
		if name != Docker && name != Process {
			return fmt.Errorf("unknown runtime %q", name)
		}
	}
	if c.Again != nil {
		if err := c.Again.check(); err != nil {
			return fmt.Errorf("again: %w", err)
		}
	}
	return c.Expect.check()
}

func (e *Expect) check() error {
	if e.State == "" {
		e.State = Succeeded
	}
	if !slices.Contains(knownStates, e.State) {
		return fmt.Errorf("unknown state %q", e.State)
	}
	if _, err := regexp.Compile(e.Message); err != nil {
		return err
	}
	for path, task := range e.Tasks {
		if !slices.Contains(knownTaskStates, task.State) {
			return fmt.Errorf("task %s: unknown state %q", path, task.State)
		}
	}
	if e.State == Refused && (e.Message == "" || e.Outputs != nil || e.Tasks != nil) {
		return errors.New("a refusal is described by its message alone")
	}
	return nil
}

// strict decodes JSON and refuses fields that the type does not have.
func strict(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
