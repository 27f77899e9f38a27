package kfp

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/problem"
)

// ResolveInputs holds a run's parameters against the pipeline's inputs: the
// values given, made of their declared types, and the defaults of the others.
// An optional input without either is absent. What is wrong comes as problems:
// undeclared names, other types, values out of the literals, and required
// inputs without a value. Names of input artifacts may be given too; see
// RootArtifacts.
func ResolveInputs(inputs ComponentInputsSpec, given map[string]json.RawMessage) (map[string]any, problem.List) {
	resolved := make(map[string]any, len(inputs.Parameters))
	var problems problem.List
	names := slices.Collect(maps.Keys(inputs.Parameters))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		def := inputs.Parameters[name]
		if def == nil && inputs.Artifacts[name] != nil {
			if _, err := artifactAddress(given[name]); err != nil {
				problems.Add("parameters."+name, "%w", err).Hint = "give an address, such as s3://bucket/data"
			}
			continue
		}
		if def == nil {
			problems.Add("parameters."+name, "the pipeline has no such input").Hint = didYouMean(name, names, "inputs")
			continue
		}
		value, err := givenValue(def, given[name])
		if err != nil {
			problems.Add("parameters."+name, "%w", err).Hint = parameterHint(def)
			continue
		}
		if value != nil {
			resolved[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(inputs.Parameters)) {
		def := inputs.Parameters[name]
		if _, done := resolved[name]; done || problemWith(problems, name) {
			continue
		}
		switch {
		case def.DefaultValue != nil:
			value, err := def.Coerce(def.DefaultValue)
			if err != nil {
				problems.Add("root.inputDefinitions.parameters."+name+".defaultValue", "%w", err)
				continue
			}
			resolved[name] = value
		case !def.IsOptional:
			problems.Add("parameters."+name, "required, but no value was given and there is no default").
				Hint = fmt.Sprintf("give it with -p %s=…", name)
		}
	}
	return resolved, problems
}

// RootArtifacts are the addresses that a run was given for the pipeline's input
// artifacts, under the names of the inputs beside its parameters. An input that
// none was given for is there with an empty address. ResolveInputs has checked
// them.
func RootArtifacts(inputs ComponentInputsSpec, given map[string]json.RawMessage) map[string]string {
	addresses := make(map[string]string, len(inputs.Artifacts))
	for name := range inputs.Artifacts {
		address, err := artifactAddress(given[name])
		if err != nil {
			address = ""
		}
		addresses[name] = address
	}
	return addresses
}

// artifactAddress reads the address of an artifact.
func artifactAddress(raw json.RawMessage) (string, error) {
	var address string
	if err := json.Unmarshal(raw, &address); err != nil || !strings.Contains(address, "://") {
		return "", fmt.Errorf("%s is not the address of an artifact", clip(string(raw), 60))
	}
	return address, nil
}

// givenValue reads one value; nil for an optional input given as null.
func givenValue(def *InputParameterDef, raw json.RawMessage) (any, error) {
	value, err := parseJSONValue(raw)
	if err != nil {
		return nil, err
	}
	if value == nil && (def.IsOptional || def.DefaultValue != nil) {
		return nil, nil
	}
	if err := exactInteger(def.Type(), strings.TrimSpace(string(raw))); err != nil {
		return nil, err
	}
	return def.Coerce(value)
}

func parameterHint(def *InputParameterDef) string {
	switch def.Type() {
	case ParameterList:
		return `give JSON, such as ["a", "b"]`
	case ParameterStruct:
		return `give JSON, such as {"key": "value"}`
	}
	return ""
}

// problemWith reports whether a parameter has a problem already.
func problemWith(problems problem.List, name string) bool {
	for _, p := range problems {
		if p.Field == "parameters."+name {
			return true
		}
	}
	return false
}
