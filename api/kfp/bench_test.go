package kfp

import (
	"fmt"
	"strings"
	"testing"
)

// chainOf is a pipeline of that many tasks, each waiting for the one before.
func chainOf(count int) []byte {
	var b strings.Builder
	b.WriteString("components:\n  c: {executorLabel: e, inputDefinitions: {parameters: {n: {parameterType: NUMBER_INTEGER}}}, outputDefinitions: {parameters: {o: {parameterType: NUMBER_INTEGER}}}}\n")
	b.WriteString("deploymentSpec: {executors: {e: {container: {image: 'python:3.11', command: [run, \"{{$.inputs.parameters['n']}}\"]}}}}\n")
	b.WriteString("pipelineInfo: {name: chain}\nschemaVersion: 2.1.0\nroot:\n  dag:\n    tasks:\n")
	for i := range count {
		fmt.Fprintf(&b, "      t%d:\n        cachingOptions:\n          enableCache: true\n        componentRef:\n          name: c\n        inputs:\n          parameters:\n            n:\n", i)
		if i == 0 {
			b.WriteString("              runtimeValue:\n                constant: 1.0\n")
			continue
		}
		fmt.Fprintf(&b, "              taskOutputParameter:\n                outputParameterKey: o\n                producerTask: t%d\n        dependentTasks:\n        - t%d\n", i-1, i-1)
	}
	return []byte(b.String())
}

// TestChainIsAccepted holds the promise that a pipeline of 10,000 tasks passes.
func TestChainIsAccepted(t *testing.T) {
	pkg, err := Load("chain.yaml", chainOf(10_000), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if problems := Validate(pkg, Checks{}); len(problems) > 0 {
		t.Fatal(problems)
	}
}

func BenchmarkDoor(b *testing.B) {
	for _, count := range []int{10, 1000, 10_000} {
		data := chainOf(count)
		b.Run(fmt.Sprintf("tasks=%d", count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pkg, err := Load("chain.yaml", data, Limits{})
				if err != nil {
					b.Fatal(err)
				}
				if problems := Validate(pkg, Checks{}); len(problems) > 0 {
					b.Fatal(problems)
				}
				if _, _, err := pkg.Canonical(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
