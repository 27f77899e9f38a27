package kfp

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// ExecutorInput is what a component is handed ("{{$}}").
type ExecutorInput struct {
	Inputs  ExecutorInputs  `json:"inputs"`
	Outputs ExecutorOutputs `json:"outputs"`
}

// ExecutorInputs are resolved inputs.
type ExecutorInputs struct {
	ParameterValues map[string]any          `json:"parameterValues,omitempty"`
	Artifacts       map[string]ArtifactList `json:"artifacts,omitempty"`
}

// ExecutorOutputs say where a component writes its outputs.
type ExecutorOutputs struct {
	Parameters map[string]OutputParameter `json:"parameters,omitempty"`
	Artifacts  map[string]ArtifactList    `json:"artifacts,omitempty"`
	// OutputFile is where it may report its outputs itself (ExecutorOutput).
	OutputFile string `json:"outputFile,omitempty"`
}

// OutputParameter is the file for one output parameter.
type OutputParameter struct {
	OutputFile string `json:"outputFile,omitempty"`
}

// ArtifactList is one artifact or several.
type ArtifactList struct {
	Artifacts []RuntimeArtifact `json:"artifacts,omitempty"`
}

// RuntimeArtifact is an artifact as a component sees it.
type RuntimeArtifact struct {
	Name     string             `json:"name,omitempty"`
	Type     ArtifactTypeSchema `json:"type,omitzero"`
	URI      string             `json:"uri,omitempty"`
	Metadata map[string]any     `json:"metadata,omitempty"`
	// CustomPath is where it lies where that does not follow from the URI.
	CustomPath string `json:"customPath,omitempty"`
}

// ExecutorOutput is what a component reports of its outputs.
type ExecutorOutput struct {
	ParameterValues map[string]any          `json:"parameterValues,omitempty"`
	Artifacts       map[string]ArtifactList `json:"artifacts,omitempty"`
}

// ParseExecutorOutput reads the file that a component wrote. Components are
// older and newer than this program, so unknown fields are passed over.
func ParseExecutorOutput(data []byte) (*ExecutorOutput, error) {
	out := &ExecutorOutput{}
	// The SDK's json module writes NaN and Infinity where a metric has none;
	// they have no place in JSON, so they are read as the text they are.
	if err := json.Unmarshal(quoteNonFinite(data), out); err != nil {
		return nil, fmt.Errorf("executor output: %w; want the JSON of an ExecutorOutput", err)
	}
	return out, nil
}

// quoteNonFinite puts the bare words NaN, Infinity and -Infinity in quotes.
func quoteNonFinite(data []byte) []byte {
	if !bytes.Contains(data, []byte("NaN")) && !bytes.Contains(data, []byte("Infinity")) {
		return data
	}
	out := make([]byte, 0, len(data)+16)
	inText := false
	for i := 0; i < len(data); i++ {
		c := data[i]
		if inText {
			out = append(out, c)
			if c == '\\' && i+1 < len(data) {
				i++
				out = append(out, data[i])
			} else if c == '"' {
				inText = false
			}
			continue
		}
		if word := nonFinite(data[i:]); word != "" {
			out = append(append(append(out, '"'), word...), '"')
			i += len(word) - 1
			continue
		}
		inText = c == '"'
		out = append(out, c)
	}
	return out
}

func nonFinite(data []byte) string {
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if bytes.HasPrefix(data, []byte(word)) {
			return word
		}
	}
	return ""
}
