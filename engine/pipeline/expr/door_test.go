package expr

import (
	"fmt"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/kfp"
)

const guarded = `pipelineInfo: {name: guarded}
schemaVersion: 2.1.0
components:
  comp-step:
    executorLabel: exec-step
    inputDefinitions: {parameters: {n: {parameterType: NUMBER_INTEGER}}}
deploymentSpec:
  executors:
    exec-step: {container: {image: python}}
root:
  inputDefinitions: {parameters: {n: {parameterType: NUMBER_INTEGER}}}
  dag:
    tasks:
      step:
        componentRef: {name: comp-step}
        inputs:
          parameters:
            n:
              componentInputParameter: n
              parameterExpressionSelector: %s
        triggerPolicy:
          condition: %s
`

// TestExpressionsAtTheDoor holds that a package with an expression that cannot
// be evaluated is refused with its place.
func TestExpressionsAtTheDoor(t *testing.T) {
	for _, tc := range []struct{ selector, condition, want string }{
		{`""`, `int(inputs.parameter_values['n']) > 3`, ""},
		{`""`, `int(inputs.parameter_values['n'] > 3`, "p.yaml: line 22: root.dag.tasks.step.triggerPolicy.condition: not valid CEL: column"},
		{`""`, `inputs.parameter_values['m'] > 3`, `p.yaml: line 22: root.dag.tasks.step.triggerPolicy.condition: it reads the input "m", which the task does not have`},
		{`""`, `inputs.parameter_values['n'] + 1`, "root.dag.tasks.step.triggerPolicy.condition: it gives int, want true or false"},
		{`""`, `import os`, "not valid CEL"},
		{`parseJson(`, `"true"`, "p.yaml: line 20: root.dag.tasks.step.inputs.parameters.n.parameterExpressionSelector: not valid CEL"},
	} {
		pkg, err := kfp.Load("p.yaml", fmt.Appendf(nil, guarded, tc.selector, tc.condition), kfp.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		problems := kfp.Validate(pkg, kfp.Checks{Condition: Check, Selector: CheckSelector})
		switch {
		case tc.want == "" && len(problems) > 0:
			t.Errorf("%s: %v", tc.condition, problems)
		case tc.want != "" && (len(problems) != 1 || !strings.Contains(problems[0].Error(), tc.want)):
			t.Errorf("%s: got %v, want %q", tc.condition, problems, tc.want)
		}
	}
}
