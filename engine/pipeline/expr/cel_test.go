package expr

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEvalCondition(t *testing.T) {
	params := map[string]any{
		"s": "heads", "n": 5.0, "d": 2.5, "b": true, "numeric": "7", "none": nil,
		"list": []any{"a", 1.0}, "map": map[string]any{"k": "v"}, "json": `{"A": {"B": 3}}`,
	}
	for _, tc := range []struct {
		condition string
		want      bool
	}{
		// What the KFP compiler writes, for each pair of types.
		{"inputs.parameter_values['s'] == 'heads'", true},
		{"!(inputs.parameter_values['s'] == 'heads')", false},
		{"!(inputs.parameter_values['s'] == 'tails') && inputs.parameter_values['s'] == 'heads'", true},
		{"inputs.parameter_values['s'] < 'tails'", true},
		{"inputs.parameter_values['numeric'] == '7'", true},
		{"int(inputs.parameter_values['n']) == 5", true},
		{"int(inputs.parameter_values['n']) >= int(inputs.parameter_values['d'])", true},
		{"double(int(inputs.parameter_values['n'])) > 2.5", true},
		{"double(int(inputs.parameter_values['n'])) < inputs.parameter_values['d']", false},
		{"inputs.parameter_values['d'] == 2.5", true},
		{"inputs.parameter_values['b'] == true", true},
		{"!(inputs.parameter_values['b'] == true)", false},
		{"inputs.parameter_values['b'] != false", true},
		// An operand that is put into quotes, which is no CEL as it stands.
		{"inputs.parameter_values['s'] == 'inputs.parameter_values['b']'", false},
		{"'int(inputs.parameter_values['n'])' == '5'", true},
		{"inputs.parameter_values['numeric'] != 'int(inputs.parameter_values['n'])'", true},
		{"'inputs.parameter_values['b']' == 'true'", true},
		// What people write by hand.
		{"int(inputs.parameter_values['numeric']) > 5", true},
		{"inputs.parameter_values['n'] == 5", true},
		{"inputs.parameter_values['n'] > 4", true},
		{"inputs.parameter_values.n > 4", true},
		{"inputs.parameter_values['none'] == null", true},
		{"inputs.parameter_values['absent'] == 'x'", false},
		{"parseJson(inputs.parameter_values['json'])['A']['B'] == 3", true},
		{"'a' in inputs.parameter_values['list'] && size(inputs.parameter_values['list']) == 2", true},
		{"inputs.parameter_values['map'].k == 'v'", true},
		{"inputs.parameters['n'].int_value == 5 && inputs.parameters['s'].string_value == 'heads'", true},
		{"inputs.parameters['d'].double_value > 2.0", true},
		{"int(parseJson(inputs.parameter_values['json'])['A']['B']) > 2", true},
		{"string(inputs.parameter_values['list'][1]) == '1'", true},
		{"true || inputs.parameter_values['s'] == 'x'", true},
	} {
		got, err := EvalCondition(tc.condition, params)
		if err != nil {
			t.Errorf("%s: %v", tc.condition, err)
		} else if got != tc.want {
			t.Errorf("%s: got %v", tc.condition, got)
		}
	}
}

func TestConditionErrors(t *testing.T) {
	for _, tc := range []struct{ condition, want string }{
		{"inputs.parameter_values['s'] ==", "not valid CEL: column"},
		{"inputs.parameter_values['s'] + 1", "it gives int"},
		{"1 + 1", "it gives int, want true or false"},
		{"unknown == 1", "undeclared reference to 'unknown'"},
		{"inputs.artifacts['a'] == 1", `inputs has no field "artifacts"`},
		{"int(inputs.parameter_values['s']) > 1", "evaluate"},
		{"[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, [1,2,3,4,5,6,7,8,9].all(f, true))))))", "cost"},
		{strings.Repeat("(", 1000) + "true" + strings.Repeat(")", 1000), "recursion"},
		{"'" + strings.Repeat("x", maxSource) + "' == 'y'", "size"},
	} {
		_, err := EvalCondition(tc.condition, map[string]any{"s": "text"})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.80s: got %v, want %q", tc.condition, err, tc.want)
		}
	}
}

func TestCheckNamesInputs(t *testing.T) {
	if err := Check("inputs.parameter_values['a'] == inputs.parameters['b'].string_value", []string{"a", "b"}); err != nil {
		t.Error(err)
	}
	err := Check("inputs.parameter_values['a'] == 'x'", []string{"b"})
	if err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("got %v, want the missing input named", err)
	}
	if err := Check("inputs.parameter_values['a'] == 'x'", nil); err != nil {
		t.Errorf("without names nothing is held against them: %v", err)
	}
}

func TestSelect(t *testing.T) {
	item := map[string]any{"A_a": "1", "B": []any{1.0, map[string]any{"c": true}}}
	for _, tc := range []struct {
		selector    string
		value, want any
	}{
		{`parseJson(string_value)["A_a"]`, item, "1"},
		{`parseJson(string_value)["B"]`, item, []any{1.0, map[string]any{"c": true}}},
		{`parseJson(string_value)["B"][0]`, item, 1.0},
		{`parseJson(string_value)["x"]`, `{"x": null}`, nil},
		{`string_value`, 3.0, "3"},
		{`number_value + 1.0`, 3.0, 4.0},
		{`struct_value.A_a`, item, "1"},
		{`list_value[1]`, []any{"a", "b"}, "b"},
		{`bool_value`, true, true},
	} {
		got, err := Select(tc.selector, tc.value)
		if err != nil {
			t.Errorf("%s: %v", tc.selector, err)
		} else if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.selector, diff)
		}
	}
	for _, tc := range []struct {
		selector string
		value    any
		want     string
	}{
		{`parseJson(string_value)["absent"]`, item, "no such key"},
		{`parseJson(string_value)`, "not json", "parseJson"},
		{`nonsense(`, item, "not valid CEL"},
		{`number_value`, "text", "no such attribute"},
	} {
		if _, err := Select(tc.selector, tc.value); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.selector, err, tc.want)
		}
	}
}

func TestProgramCacheIsBounded(t *testing.T) {
	for i := range 2 * cachedPrograms {
		if err := CheckSelector(strings.Repeat("(", i%9) + "string_value == '" + strings.Repeat("x", i) + "'" + strings.Repeat(")", i%9)); err != nil {
			t.Fatal(err)
		}
	}
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	if len(e.programs) > cachedPrograms || len(e.order) != len(e.programs) {
		t.Errorf("%d programs and %d in order, want at most %d", len(e.programs), len(e.order), cachedPrograms)
	}
}
