package kfp

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// Argument is one element of a command line: a text with placeholders, or an
// operator that makes one element, several or none of it. Exactly one of the
// fields is set, Text also for the empty text.
type Argument struct {
	Text      Template
	IfPresent *IfPresent
	Concat    *Concat
}

// IfPresent gives Then where the named input has a value, Else otherwise.
type IfPresent struct {
	Input string
	Then  []Argument
	// Else is empty where there is none.
	Else []Argument
	// ThenList and ElseList tell a list from a single element.
	ThenList, ElseList bool
}

// Concat joins its items to one element. An item that gives nothing is left out.
type Concat struct{ Items []Argument }

var operatorHead = regexp.MustCompile(`^\s*\{\s*"(Concat|IfPresent)"\s*:`)

// ParseArgumentTemplate reads one element of a command line as it is written in
// a component: operators are JSON objects that are the whole element.
func ParseArgumentTemplate(text string) (Argument, error) {
	if len(text) < 8 || !operatorHead.MatchString(text) {
		return Argument{Text: ParseTemplate(text)}, nil
	}
	value, err := parseJSONValue([]byte(text))
	if err != nil {
		return Argument{}, fmt.Errorf("operator %s: %w", operatorHead.FindStringSubmatch(text)[1], err)
	}
	return operand(value)
}

// operand reads text or an operator.
func operand(value any) (Argument, error) {
	switch v := value.(type) {
	case string:
		return Argument{Text: ParseTemplate(v)}, nil
	case map[string]any:
		if len(v) != 1 {
			return Argument{}, errors.New("an operator is an object with one key, Concat or IfPresent")
		}
		if items, found := v["Concat"]; found {
			return concat(items)
		}
		if body, found := v["IfPresent"]; found {
			return ifPresent(body)
		}
		for key := range v {
			return Argument{}, fmt.Errorf("unknown operator %q; there are Concat and IfPresent", clip(key, 40))
		}
	}
	return Argument{}, fmt.Errorf("want text or an operator, got %s", valueSort(value))
}

func concat(value any) (Argument, error) {
	list, isList := value.([]any)
	if !isList {
		return Argument{}, fmt.Errorf("Concat: want a list, got %s", valueSort(value))
	}
	out := &Concat{}
	for i, item := range list {
		argument, err := operand(item)
		if err != nil {
			return Argument{}, fmt.Errorf("Concat: item %d: %w", i+1, err)
		}
		if inner := argument.IfPresent; inner != nil && (inner.ThenList || inner.ElseList) {
			return Argument{}, fmt.Errorf("Concat: item %d: an IfPresent in a Concat must give a single element, not a list", i+1)
		}
		out.Items = append(out.Items, argument)
	}
	return Argument{Concat: out}, nil
}

func ifPresent(value any) (Argument, error) {
	body, isMap := value.(map[string]any)
	if !isMap {
		return Argument{}, fmt.Errorf("IfPresent: want an object, got %s", valueSort(value))
	}
	for key := range body {
		if !slices.Contains([]string{"InputName", "Then", "Else"}, key) {
			return Argument{}, fmt.Errorf("IfPresent: unknown field %q; there are InputName, Then and Else", clip(key, 40))
		}
	}
	name, isText := body["InputName"].(string)
	if !isText || name == "" {
		return Argument{}, errors.New("IfPresent: InputName must name an input")
	}
	out := &IfPresent{Input: name}
	var err error
	if body["Then"] == nil {
		return Argument{}, errors.New("IfPresent: Then is required")
	}
	if out.Then, out.ThenList, err = branch(body["Then"]); err != nil {
		return Argument{}, fmt.Errorf("IfPresent: Then: %w", err)
	}
	if body["Else"] != nil {
		if out.Else, out.ElseList, err = branch(body["Else"]); err != nil {
			return Argument{}, fmt.Errorf("IfPresent: Else: %w", err)
		}
	}
	return Argument{IfPresent: out}, nil
}

// branch reads one element or a list of them.
func branch(value any) (out []Argument, isList bool, err error) {
	list, isList := value.([]any)
	if !isList {
		list = []any{value}
	}
	for _, item := range list {
		argument, err := operand(item)
		if err != nil {
			return nil, false, err
		}
		out = append(out, argument)
	}
	return out, isList, nil
}

// Walk calls fn for every placeholder of the argument and input for every name
// that an IfPresent asks for.
func (a Argument) Walk(fn func(*Placeholder), input func(name string)) {
	for _, segment := range a.Text {
		if segment.Placeholder != nil {
			fn(segment.Placeholder)
		}
	}
	if a.Concat != nil {
		for _, item := range a.Concat.Items {
			item.Walk(fn, input)
		}
	}
	if a.IfPresent != nil {
		input(a.IfPresent.Input)
		for _, item := range slices.Concat(a.IfPresent.Then, a.IfPresent.Else) {
			item.Walk(fn, input)
		}
	}
}
