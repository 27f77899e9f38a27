package kfp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// A parameter's value has the forms of google.protobuf.Value: nil, bool,
// float64, string, []any or map[string]any. All numbers are doubles.

// maxExactInteger is the largest whole number up to which every one is exact in
// a double: the published range of NUMBER_INTEGER.
const maxExactInteger = 1<<53 - 1

// NumberText is a number as components see it in their arguments: the shortest
// decimal that reads back the same, without an exponent, whole numbers without
// a fraction.
func NumberText(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// ValueText is a value as text: text as it is, numbers as NumberText has them,
// everything else as JSON.
func ValueText(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case float64:
		return NumberText(v), nil
	}
	return JSONText(value)
}

// JSONText is a value as compact JSON, without the escapes that encoding/json
// adds for HTML: the text reaches programs, not pages.
func JSONText(value any) (string, error) {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return "", fmt.Errorf("write a value as JSON: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// CoerceParameter makes a value one of the declared type. Anything may feed a
// STRING, as its JSON text; any other mismatch is an error, as is a null.
func CoerceParameter(declared ParameterType, value any) (any, error) {
	if value == nil {
		return nil, fmt.Errorf("want %s, got null", typeText(declared))
	}
	mismatch := func() (any, error) {
		return nil, fmt.Errorf("want %s, got %s", typeText(declared), valueSort(value))
	}
	switch declared {
	case ParameterString:
		return ValueText(value)
	case ParameterDouble, ParameterInteger:
		n, ok := value.(float64)
		if !ok {
			return mismatch()
		}
		if declared == ParameterInteger {
			if n != math.Trunc(n) {
				return nil, fmt.Errorf("want %s, got %s", typeText(declared), NumberText(n))
			}
			if math.Abs(n) > maxExactInteger {
				return nil, fmt.Errorf("%s is beyond ±%d, the whole numbers that %s can hold exactly", NumberText(n), int64(maxExactInteger), declared)
			}
		}
	case ParameterBoolean:
		if _, ok := value.(bool); !ok {
			return mismatch()
		}
	case ParameterList:
		if _, ok := value.([]any); !ok {
			return mismatch()
		}
	case ParameterStruct, ParameterTaskFinalStatus, ParameterTaskConfig:
		if _, ok := value.(map[string]any); !ok {
			return mismatch()
		}
	}
	return value, nil
}

// Coerce makes a value one of the declared type and holds it against the
// literals, where there are any.
func (d *InputParameterDef) Coerce(value any) (any, error) {
	coerced, err := CoerceParameter(d.Type(), value)
	if err != nil {
		return nil, err
	}
	if len(d.Literals) == 0 {
		return coerced, nil
	}
	allowed := make([]string, len(d.Literals))
	for i, literal := range d.Literals {
		if reflect.DeepEqual(literal, coerced) {
			return coerced, nil
		}
		if allowed[i], err = JSONText(literal); err != nil {
			return nil, err
		}
	}
	got, err := JSONText(coerced)
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s is not one of the allowed values %s", clip(got, 60), clip(strings.Join(allowed, ", "), 300))
}

// typeText is a type as people read it.
func typeText(t ParameterType) string {
	switch t {
	case ParameterString:
		return "text (STRING)"
	case ParameterDouble:
		return "a number (NUMBER_DOUBLE)"
	case ParameterInteger:
		return "a whole number (NUMBER_INTEGER)"
	case ParameterBoolean:
		return "true or false (BOOLEAN)"
	case ParameterList:
		return "a list (LIST)"
	case ParameterStruct, ParameterTaskFinalStatus, ParameterTaskConfig:
		return "a mapping (" + string(t) + ")"
	}
	return "a value"
}

// valueSort says what a value is, for a message.
func valueSort(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return "the boolean " + strconv.FormatBool(v)
	case float64:
		return "the number " + NumberText(v)
	case string:
		return fmt.Sprintf("the text %q", clip(v, 60))
	case []any:
		return fmt.Sprintf("a list of %d", len(v))
	case map[string]any:
		return "a mapping"
	}
	return fmt.Sprintf("%T", value)
}

// ParseOutputFile reads the file that a component wrote for an output parameter
// of the declared type. Text is taken as it is; everything else is JSON, with
// the spellings of booleans and numbers that Python and shells print.
func ParseOutputFile(declared ParameterType, data []byte) (any, error) {
	if declared == ParameterString {
		return string(data), nil
	}
	return parseText(declared, string(data), "the file")
}

// ParseArgument reads a parameter given as text ("-p name=text") by its
// declared type.
func ParseArgument(declared ParameterType, text string) (any, error) {
	if declared == ParameterString {
		return text, nil
	}
	return parseText(declared, text, "the text")
}

func parseText(declared ParameterType, text, source string) (any, error) {
	trimmed := strings.TrimSpace(text)
	value, err := parseJSONValue([]byte(trimmed))
	switch declared {
	case ParameterBoolean:
		switch strings.ToLower(trimmed) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
	case ParameterDouble, ParameterInteger:
		if err != nil {
			n, parseErr := strconv.ParseFloat(trimmed, 64)
			if parseErr == nil && !math.IsInf(n, 0) && !math.IsNaN(n) && strings.Trim(trimmed, "0123456789.+-eE") == "" {
				value, err = n, nil // ".5", "+1" and "1." are numbers, if not JSON's
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("want %s, got %s %q", typeText(declared), source, clip(trimmed, 60))
	}
	if err := exactInteger(declared, trimmed); err != nil {
		return nil, err
	}
	return CoerceParameter(declared, value)
}

// exactInteger refuses a whole number that a double would round, which only
// its text still shows.
func exactInteger(declared ParameterType, text string) error {
	if declared != ParameterInteger {
		return nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); (err == nil && (n > maxExactInteger || n < -maxExactInteger)) || errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%s is beyond ±%d, the whole numbers that %s can hold exactly", clip(text, 40), int64(maxExactInteger), declared)
	}
	return nil
}

// maxValueDepth bounds how deep a value nests; the decoder of a package uses
// the same by default.
const maxValueDepth = DefaultMaxDepth

// parseJSONValue reads exactly one JSON value.
func parseJSONValue(data []byte) (any, error) {
	if err := checkDepth(data); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read JSON: something follows the value")
	}
	return value, nil
}

// checkDepth refuses brackets that nest too deep, before anything is built.
func checkDepth(data []byte) error {
	depth, inText := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '[' || c == '{':
			if depth++; depth > maxValueDepth {
				return fmt.Errorf("nested more than %d levels deep", maxValueDepth)
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return nil
}
