package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/skiff"
)

// Reproduction says whether a run came to the same as the one that it was made
// to do again. Its field names are stable.
type Reproduction struct {
	// Identical is true where nothing differs, bit for bit.
	Identical bool `json:"identical"`
	// Original and Reproduced are the runs' ids.
	Original   string      `json:"original"`
	Reproduced string      `json:"reproduced"`
	State      skiff.State `json:"state"`
	// Tasks are those of both runs, in the order of the original.
	Tasks []ReproducedTask `json:"tasks"`
	// Differences are those of the run's own state and outputs.
	Differences []Difference `json:"differences"`
}

// ReproducedTask compares one task.
type ReproducedTask struct {
	Name        string       `json:"name"`
	Identical   bool         `json:"identical"`
	Differences []Difference `json:"differences,omitempty"`
}

// Difference is one thing that is not the same. A value that is absent is null.
type Difference struct {
	// What is state, parameter, artifact, metadata, image or task.
	What string `json:"what"`
	// Name is the output's; empty where What says it all.
	Name       string          `json:"name,omitempty"`
	Original   json.RawMessage `json:"original"`
	Reproduced json.RawMessage `json:"reproduced"`
}

// Reproduce compares two runs task by task: states, output parameters, the
// contents and the metadata of output artifacts, and images. sameImage says
// which digests stand for one image; nil compares them as they are.
func Reproduce(original, again *Run, sameImage func(a, b string) bool) *Reproduction {
	r := &Reproduction{Original: original.RunID, Reproduced: again.RunID, State: again.State, Tasks: []ReproducedTask{}, Differences: []Difference{}}
	if sameImage == nil {
		sameImage = func(a, b string) bool { return a == b }
	}
	c := &comparing{first: artifactsByID(original), second: artifactsByID(again), sameImage: sameImage}
	r.Differences = append(r.Differences, states(original.State, again.State)...)
	r.Differences = append(r.Differences, parameters(original.Outputs, again.Outputs)...)
	r.Differences = append(r.Differences, c.artifacts(original.OutputArtifacts, again.OutputArtifacts)...)
	others := make(map[string]*Task, len(again.Tasks))
	for i := range again.Tasks {
		others[again.Tasks[i].Name] = &again.Tasks[i]
	}
	for i := range original.Tasks {
		t := &original.Tasks[i]
		r.add(t.Name, c.tasks(t, others[t.Name]))
		delete(others, t.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		r.add(name, []Difference{{What: "task", Reproduced: quoted(string(others[name].State))}})
	}
	r.Identical = len(r.Differences) == 0 && !slices.ContainsFunc(r.Tasks, func(t ReproducedTask) bool { return !t.Identical })
	return r
}

func (r *Reproduction) add(name string, differences []Difference) {
	r.Tasks = append(r.Tasks, ReproducedTask{Name: name, Identical: len(differences) == 0, Differences: differences})
}

type comparing struct {
	first, second map[string]*Artifact
	sameImage     func(a, b string) bool
}

func artifactsByID(run *Run) map[string]*Artifact {
	byID := make(map[string]*Artifact, len(run.Artifacts))
	for i := range run.Artifacts {
		byID[run.Artifacts[i].ID] = &run.Artifacts[i]
	}
	return byID
}

func (c *comparing) tasks(a, b *Task) []Difference {
	if b == nil {
		return []Difference{{What: "task", Original: quoted(string(a.State))}}
	}
	differences := states(a.State, b.State)
	if a.ImageDigest != "" && b.ImageDigest != "" && !c.sameImage(a.ImageDigest, b.ImageDigest) {
		differences = append(differences, Difference{What: "image", Original: quoted(a.ImageDigest), Reproduced: quoted(b.ImageDigest)})
	}
	differences = append(differences, parameters(a.Outputs, b.Outputs)...)
	return append(differences, c.artifacts(a.OutputArtifacts, b.OutputArtifacts)...)
}

func states(a, b skiff.State) []Difference {
	if a == b {
		return nil
	}
	return []Difference{{What: "state", Original: quoted(string(a)), Reproduced: quoted(string(b))}}
}

func parameters(a, b map[string]json.RawMessage) []Difference {
	var differences []Difference
	for _, name := range keysOf(a, b) {
		if !sameJSON(a[name], b[name]) {
			differences = append(differences, Difference{What: "parameter", Name: name, Original: a[name], Reproduced: b[name]})
		}
	}
	return differences
}

// artifacts compares the artifacts of outputs in their order.
func (c *comparing) artifacts(a, b map[string][]string) []Difference {
	var differences []Difference
	for _, output := range keysOf(a, b) {
		for i := range max(len(a[output]), len(b[output])) {
			name := output
			if max(len(a[output]), len(b[output])) > 1 {
				name = fmt.Sprintf("%s[%d]", output, i)
			}
			differences = append(differences, compareArtifact(name, pick(c.first, a[output], i), pick(c.second, b[output], i))...)
		}
	}
	return differences
}

// pick is the artifact at a place of a list. One of another run, from which a
// result was taken, is known by its id alone.
func pick(byID map[string]*Artifact, ids []string, i int) *Artifact {
	if i >= len(ids) {
		return nil
	}
	if a := byID[ids[i]]; a != nil {
		return a
	}
	return &Artifact{ID: ids[i]}
}

func compareArtifact(name string, a, b *Artifact) []Difference {
	var differences []Difference
	first, second := contentsOf(a), contentsOf(b)
	// Contents that nobody has hashed are not known to be the same.
	if first != second || first == unknown {
		differences = append(differences, Difference{What: "artifact", Name: name, Original: textOrNull(first), Reproduced: textOrNull(second)})
	}
	if a == nil || b == nil {
		return differences
	}
	if mine, theirs := metadataOf(a), metadataOf(b); !sameJSON(mine, theirs) {
		differences = append(differences, Difference{What: "metadata", Name: name, Original: mine, Reproduced: theirs})
	}
	return differences
}

const unknown = "unknown"

// contentsOf is what identifies an artifact's contents.
func contentsOf(a *Artifact) string {
	switch {
	case a == nil:
		return ""
	case a.Missing:
		return "never written"
	case a.Digest != "":
		return a.Digest
	case a.Imported:
		return a.URI // kept elsewhere: its address is all there is
	default:
		return unknown
	}
}

func metadataOf(a *Artifact) json.RawMessage {
	if len(a.Metadata) == 0 {
		return json.RawMessage(`{}`)
	}
	data, err := json.Marshal(a.Metadata)
	if err != nil {
		return json.RawMessage(`{}`) // raw JSON that was checked when it was stored
	}
	return data
}

// sameJSON compares values, not their spelling; numbers to the last digit.
func sameJSON(a, b json.RawMessage) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return bytes.Equal(canonical(a), canonical(b))
}

func canonical(raw json.RawMessage) []byte {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) != nil {
		return raw
	}
	data, err := json.Marshal(value)
	if err != nil {
		return raw
	}
	return data
}

func keysOf[V any](a, b map[string]V) []string {
	all := map[string]bool{}
	for key := range a {
		all[key] = true
	}
	for key := range b {
		all[key] = true
	}
	return slices.Sorted(maps.Keys(all))
}

func quoted(text string) json.RawMessage {
	data, _ := json.Marshal(text) // a string always is JSON
	return data
}

func textOrNull(text string) json.RawMessage {
	if text == "" {
		return json.RawMessage("null")
	}
	return quoted(text)
}

// Text says a difference in one line, for people.
func (d *Difference) Text() string {
	name := d.What
	if d.Name != "" {
		name += " " + d.Name
	}
	show := func(raw json.RawMessage) string {
		if len(raw) == 0 || string(raw) == "null" {
			return "none"
		}
		var text string
		if json.Unmarshal(raw, &text) == nil {
			// The first digits tell two hashes apart.
			if hash, is := strings.CutPrefix(text, "sha256:"); is && len(hash) > 12 {
				return "sha256:" + hash[:12]
			}
			return text
		}
		return string(raw)
	}
	return fmt.Sprintf("%s: %s, was %s", name, show(d.Reproduced), show(d.Original))
}
