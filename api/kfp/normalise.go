package kfp

// normalise replaces deprecated forms by those that took their place, so that
// nothing behind Load needs to know them.
func normalise(spec *PipelineSpec) {
	normaliseComponent(spec.Root)
	for _, component := range spec.Components {
		normaliseComponent(component)
	}
	for _, executor := range spec.DeploymentSpec.Executors {
		if importer := executor.Importer; importer != nil {
			importer.ArtifactURI.normalise()
			importer.Metadata = mergeProperties(importer.Metadata, importer.Properties, importer.CustomProperties)
			importer.Properties, importer.CustomProperties = nil, nil
		}
	}
}

func normaliseComponent(c *ComponentSpec) {
	if c == nil {
		return
	}
	for _, def := range c.InputDefinitions.Parameters {
		def.ParameterType, def.PrimitiveType = def.Type(), ""
		// A number as the default of a text is text; what does not fit stays
		// for Validate to report.
		if value, err := CoerceParameter(def.ParameterType, def.DefaultValue); err == nil {
			def.DefaultValue = value
		}
	}
	for _, def := range c.OutputDefinitions.Parameters {
		def.ParameterType, def.PrimitiveType = def.Type(), ""
	}
	for _, def := range c.OutputDefinitions.Artifacts {
		def.Metadata = mergeProperties(def.Metadata, def.Properties, def.CustomProperties)
		def.Properties, def.CustomProperties = nil, nil
	}
	if c.Dag == nil {
		return
	}
	for _, task := range c.Dag.Tasks {
		for _, input := range task.Inputs.Parameters {
			if input.RuntimeValue != nil {
				input.RuntimeValue.normalise()
			}
		}
	}
}

func (v *ValueOrRuntimeParameter) normalise() {
	if v.ConstantValue != nil {
		v.Constant, v.ConstantValue = v.ConstantValue.Value(), nil
	}
}

// mergeProperties adds constant properties to metadata, which wins.
func mergeProperties(metadata map[string]any, properties ...map[string]*ValueOrRuntimeParameter) map[string]any {
	for _, group := range properties {
		for name, value := range group {
			value.normalise()
			if metadata == nil {
				metadata = map[string]any{}
			}
			if _, given := metadata[name]; !given {
				metadata[name] = value.Constant
			}
		}
	}
	return metadata
}
