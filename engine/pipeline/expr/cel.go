package expr

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/skiff-ml/skiff/api/kfp"
)

const (
	// maxSource bounds an expression's text. The compiler writes some 100
	// characters for each branch of an If/Elif chain.
	maxSource = 64 << 10
	// maxCost bounds an evaluation in CEL's own units: about 10 ms.
	maxCost = 1_000_000
	// maxNesting bounds the parser's recursion.
	maxNesting = 250
	// cachedPrograms bounds the compiled expressions that are kept; one takes
	// about 20 kB and 200 µs to make.
	cachedPrograms = 256
)

// evaluator compiles and runs expressions.
type evaluator struct {
	conditions, selectors *cel.Env

	mu       sync.Mutex
	programs map[string]*program
	order    []string
}

// program is a compiled expression.
type program struct {
	run cel.Program
	// names are the input parameters that the expression reads by name.
	names []string
}

// shared is the one evaluator: it is immutable but for its cache, and making
// CEL's environment takes milliseconds that most commands never need.
var shared = sync.OnceValues(newEvaluator)

func newEvaluator() (*evaluator, error) {
	common := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxSource),
		cel.ParserRecursionLimit(maxNesting),
		cel.CrossTypeNumericComparisons(true),
		cel.Function("parseJson", cel.Overload("parse_json", []*cel.Type{cel.StringType}, cel.DynType, cel.UnaryBinding(parseJSON))),
	}
	conditions, err := cel.NewEnv(append(slices.Clone(common), cel.Variable("inputs", cel.MapType(cel.StringType, cel.MapType(cel.StringType, cel.DynType))))...)
	if err != nil {
		return nil, fmt.Errorf("make the environment for conditions: %w", err)
	}
	selectors, err := cel.NewEnv(append(slices.Clone(common),
		cel.Variable("string_value", cel.StringType), cel.Variable("number_value", cel.DoubleType), cel.Variable("bool_value", cel.BoolType),
		cel.Variable("struct_value", cel.DynType), cel.Variable("list_value", cel.DynType))...)
	if err != nil {
		return nil, fmt.Errorf("make the environment for selectors: %w", err)
	}
	return &evaluator{conditions: conditions, selectors: selectors, programs: map[string]*program{}}, nil
}

// parseJSON is KFP's one function beyond standard CEL.
func parseJSON(arg ref.Val) ref.Val {
	text, isText := arg.Value().(string)
	if !isText {
		return types.MaybeNoSuchOverloadErr(arg)
	}
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return types.NewErr("parseJson: %s", err.Error())
	}
	return types.DefaultTypeAdapter.NativeToValue(value)
}

// Check compiles a condition. names are the input parameters of its task: one
// that the condition reads and that is not among them is an error. With nil
// names they are not checked.
func Check(condition string, names []string) error {
	p, err := compiled(condition, true)
	if err != nil || names == nil {
		return err
	}
	for _, name := range p.names {
		if !slices.Contains(names, name) {
			return fmt.Errorf("it reads the input %q, which the task does not have", name)
		}
	}
	return nil
}

// CheckSelector compiles a parameterExpressionSelector.
func CheckSelector(selector string) error {
	_, err := compiled(selector, false)
	return err
}

// compiled is the program of an expression, from the cache where it is there.
func compiled(source string, condition bool) (*program, error) {
	e, err := shared()
	if err != nil {
		return nil, err
	}
	key := "s" + source
	env := e.selectors
	if condition {
		key, env = "c"+source, e.conditions
	}
	e.mu.Lock()
	p := e.programs[key]
	e.mu.Unlock()
	if p != nil {
		return p, nil
	}
	if p, err = compile(env, source, condition); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.programs[key] == nil {
		e.order = append(e.order, key)
		e.programs[key] = p
	}
	if len(e.order) > cachedPrograms {
		delete(e.programs, e.order[0])
		e.order = e.order[1:]
	}
	return p, nil
}

func compile(env *cel.Env, source string, condition bool) (*program, error) {
	parsed, tree, issues := check(env, source)
	if issues.Err() != nil {
		if parsed, tree, issues = check(env, requote(source)); issues.Err() != nil {
			return nil, compileError(issues)
		}
	}
	p := &program{}
	if condition {
		if kind := tree.OutputType(); !kind.IsExactType(cel.BoolType) && !kind.IsExactType(cel.DynType) {
			return nil, fmt.Errorf("it gives %s, want true or false", kind)
		}
		var err error
		if p.names, err = readNames(tree); err != nil {
			return nil, err
		}
	}
	// What runs is the tree as parsed. The checker pins a conversion of an
	// element of unknown type, such as int(parseJson(x)['n']), to the first form
	// of the function; without its marks the form follows from the value.
	var err error
	if p.run, err = env.Program(parsed, cel.CostLimit(maxCost)); err != nil {
		return nil, fmt.Errorf("prepare expression: %w", err)
	}
	return p, nil
}

// check parses an expression and checks its types.
func check(env *cel.Env, source string) (parsed, checked *cel.Ast, issues *cel.Issues) {
	if parsed, issues = env.Parse(source); issues.Err() != nil {
		return nil, nil, issues
	}
	checked, issues = env.Check(parsed)
	return parsed, checked, issues
}

// quotedOperand is what the KFP compiler writes where it compares an input with
// a text: it puts the whole operand in quotes, inner quotes and all, which is no
// CEL. What is meant is the operand as text.
var quotedOperand = regexp.MustCompile(`'((?:int\()?inputs\.parameter_values\['[^'\]]*'\]\)?)'`)

func requote(source string) string { return quotedOperand.ReplaceAllString(source, "string($1)") }

// compileError is CEL's complaint on one line.
func compileError(issues *cel.Issues) error {
	all := issues.Errors()
	if len(all) == 0 {
		return issues.Err()
	}
	message, _, _ := strings.Cut(all[0].Message, "\n")
	return fmt.Errorf("not valid CEL: column %d: %s", all[0].Location.Column()+1, message)
}

// readNames lists the parameters that an expression reads as
// inputs.parameter_values['x'] or inputs.parameters['x'], and refuses other
// fields of inputs.
func readNames(tree *cel.Ast) ([]string, error) {
	var names []string
	var err error
	ast.PostOrderVisit(tree.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			s := e.AsSelect()
			if s.Operand().Kind() == ast.IdentKind && s.Operand().AsIdent() == "inputs" {
				if field := s.FieldName(); field != "parameter_values" && field != "parameters" {
					err = fmt.Errorf("inputs has no field %q; conditions read inputs.parameter_values['NAME']", field)
				}
			} else if ofParameters(s.Operand()) {
				names = append(names, s.FieldName())
			}
		case ast.CallKind:
			call := e.AsCall()
			if call.FunctionName() != operators.Index || len(call.Args()) != 2 || !ofParameters(call.Args()[0]) {
				return
			}
			if key := call.Args()[1]; key.Kind() == ast.LiteralKind {
				if name, isText := key.AsLiteral().Value().(string); isText {
					names = append(names, name)
				}
			}
		}
	}))
	slices.Sort(names)
	return slices.Compact(names), err
}

// ofParameters reports whether e is inputs.parameter_values or inputs.parameters.
func ofParameters(e ast.Expr) bool {
	if e.Kind() != ast.SelectKind {
		return false
	}
	s := e.AsSelect()
	return s.Operand().Kind() == ast.IdentKind && s.Operand().AsIdent() == "inputs" && !s.IsTestOnly() &&
		(s.FieldName() == "parameter_values" || s.FieldName() == "parameters")
}

// EvalCondition evaluates a trigger policy's condition over a task's input
// parameters. An input without a value reads as null.
func EvalCondition(condition string, params map[string]any) (bool, error) {
	p, err := compiled(condition, true)
	if err != nil {
		return false, err
	}
	values := make(map[string]any, len(params)+len(p.names))
	for _, name := range p.names {
		values[name] = nil
	}
	maps.Copy(values, params)
	inputs := map[string]any{"parameter_values": values}
	if strings.Contains(condition, "parameters") {
		if inputs["parameters"], err = legacy(values); err != nil {
			return false, err
		}
	}
	result, err := p.eval(map[string]any{"inputs": inputs})
	if err != nil {
		return false, err
	}
	holds, isBool := result.Value().(bool)
	if !isBool {
		return false, fmt.Errorf("it gives %s, want true or false", result.Type().TypeName())
	}
	return holds, nil
}

// legacy is the parameters in their deprecated form, ml_pipelines.Value.
func legacy(values map[string]any) (map[string]any, error) {
	out := make(map[string]any, len(values))
	for name, value := range values {
		fields := map[string]any{"int_value": int64(0), "double_value": float64(0), "string_value": ""}
		if value != nil {
			text, err := kfp.ValueText(value)
			if err != nil {
				return nil, err
			}
			fields["string_value"] = text
		}
		if n, isNumber := value.(float64); isNumber {
			fields["int_value"], fields["double_value"] = int64(n), n
		}
		out[name] = fields
	}
	return out, nil
}

// eval runs the program. CEL's errors name what was missing; they are shown.
func (p *program) eval(vars map[string]any) (ref.Val, error) {
	result, _, err := p.run.Eval(vars)
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	if types.IsError(result) || types.IsUnknown(result) {
		return nil, errors.New("evaluate: it has no value")
	}
	return result, nil
}

// Select takes a part of a value by a parameterExpressionSelector. The
// expression finds the value as string_value, its JSON text, and by the field of
// google.protobuf.Value that it is.
func Select(selector string, value any) (any, error) {
	p, err := compiled(selector, false)
	if err != nil {
		return nil, fmt.Errorf("selector %s: %w", selector, err)
	}
	text, err := kfp.ValueText(value)
	if err != nil {
		return nil, fmt.Errorf("selector %s: %w", selector, err)
	}
	vars := map[string]any{"string_value": text}
	switch v := value.(type) {
	case float64:
		vars["number_value"] = v
	case bool:
		vars["bool_value"] = v
	case map[string]any:
		vars["struct_value"] = v
	case []any:
		vars["list_value"] = v
	}
	result, err := p.eval(vars)
	if err != nil {
		return nil, fmt.Errorf("selector %s: %w", selector, err)
	}
	native, err := result.ConvertToNative(reflect.TypeFor[*structpb.Value]())
	if err != nil {
		return nil, fmt.Errorf("selector %s: %w", selector, err)
	}
	return native.(*structpb.Value).AsInterface(), nil
}
