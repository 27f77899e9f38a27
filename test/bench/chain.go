package main

import (
	"encoding/json"
	"fmt"
)

// chain is a compiled pipeline of steps that wait for one another and run argv
// in a container each.
func chain(steps int, image string, argv ...string) ([]byte, error) {
	type object = map[string]any
	tasks := object{}
	for i := range steps {
		name := stepName(i)
		task := object{"taskInfo": object{"name": name}, "componentRef": object{"name": "comp-step"}}
		if i > 0 {
			task["dependentTasks"] = []string{stepName(i - 1)}
		}
		tasks[name] = task
	}
	data, err := json.Marshal(object{
		"schemaVersion": "2.1.0",
		"sdkVersion":    "by-hand",
		"pipelineInfo":  object{"name": fmt.Sprintf("chain-of-%d", steps)},
		"components":    object{"comp-step": object{"executorLabel": "exec-step"}},
		"deploymentSpec": object{"executors": object{"exec-step": object{
			"container": object{"image": image, "command": argv},
		}}},
		"root": object{"dag": object{"tasks": tasks}},
	})
	if err != nil {
		return nil, fmt.Errorf("write a chain of %d steps: %w", steps, err)
	}
	return data, nil
}

func stepName(i int) string { return fmt.Sprintf("step-%04d", i+1) }
