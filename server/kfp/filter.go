package kfp

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
)

// The operations of a predicate (kubeflow.pipelines.backend.api.v2beta1.Filter);
// 4 was never given out.
const (
	opEquals        = "EQUALS"
	opNotEquals     = "NOT_EQUALS"
	opGreater       = "GREATER_THAN"
	opGreaterEquals = "GREATER_THAN_EQUALS"
	opLess          = "LESS_THAN"
	opLessEquals    = "LESS_THAN_EQUALS"
	opIn            = "IN"
	opSubstring     = "IS_SUBSTRING"
)

func operationName(number string) string {
	names := map[string]string{"1": opEquals, "2": opNotEquals, "3": opGreater, "5": opGreaterEquals,
		"6": opLess, "7": opLessEquals, "8": opIn, "9": opSubstring}
	return names[number]
}

type filterMessage struct {
	Predicates []predicateMessage `json:"predicates"`
}

type predicateMessage struct {
	Operation      json.RawMessage `json:"operation"`
	Key            string          `json:"key"`
	IntValue       *int32          `json:"int_value"`
	LongValue      *int64          `json:"long_value"`
	StringValue    *string         `json:"string_value"`
	TimestampValue *time.Time      `json:"timestamp_value"`
	IntValues      *intValues      `json:"int_values"`
	LongValues     *longValues     `json:"long_values"`
	StringValues   *stringValues   `json:"string_values"`
}

type intValues struct {
	Values []int32 `json:"values"`
}

type longValues struct {
	Values []int64 `json:"values"`
}

type stringValues struct {
	Values []string `json:"values"`
}

// predicate is one condition; all of a filter's must hold.
type predicate struct {
	op, key string
	// values are what the field is compared with, of the field's own type; one
	// of them, save for IN.
	values []any
}

// maxPredicates and maxFilter bound what one list has to weigh.
const (
	maxPredicates = 100
	maxFilter     = 64 << 10
)

// parseFilter reads a filter and holds it against the fields that a list has.
func parseFilter(text string, fields map[string]field) ([]predicate, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxFilter {
		return nil, badRequest("filter: is longer than %d bytes", maxFilter)
	}
	var message filterMessage
	if err := decode([]byte(text), &message); err != nil {
		return nil, badRequest("filter: %v", err)
	}
	if len(message.Predicates) > maxPredicates {
		return nil, badRequest("filter: has %d predicates, more than %d", len(message.Predicates), maxPredicates)
	}
	parsed := make([]predicate, 0, len(message.Predicates))
	for _, m := range message.Predicates {
		p, err := m.parse(fields)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, p)
	}
	return parsed, nil
}

func (m *predicateMessage) parse(fields map[string]field) (predicate, error) {
	p := predicate{key: m.Key}
	name := strings.Trim(string(m.Operation), `"`)
	p.op = name
	if number := operationName(name); number != "" {
		p.op = number
	}
	if m.Key == "" {
		return p, badRequest("filter: a predicate has no key")
	}
	f, known := fields[m.Key]
	if !known {
		return p, badRequest("filter: there is no field %q; fields are %s", m.Key, fieldNames(fields))
	}
	raw, list, err := m.value()
	if err != nil {
		return p, err
	}
	switch p.op {
	case opIn:
		if !list {
			return p, badRequest("filter: %s: IN wants a list of values", m.Key)
		}
	case opSubstring:
		if list || f.time {
			return p, badRequest("filter: %s: IS_SUBSTRING looks into text alone, for a string_value", m.Key)
		}
		if _, text := raw[0].(string); !text {
			return p, badRequest("filter: %s: IS_SUBSTRING wants a string_value", m.Key)
		}
	case opEquals, opNotEquals, opGreater, opGreaterEquals, opLess, opLessEquals:
		if list {
			return p, badRequest("filter: %s: %s wants one value, not a list", m.Key, p.op)
		}
	default:
		return p, badRequest("filter: %s: there is no operation %.40s", m.Key, m.Operation)
	}
	for _, value := range raw {
		converted, err := f.convert(m.Key, value)
		if err != nil {
			return p, err
		}
		p.values = append(p.values, converted)
	}
	return p, nil
}

// value is the predicate's one value, or its list.
func (m *predicateMessage) value() (values []any, list bool, err error) {
	given := 0
	take := func(isList bool, all ...any) {
		given++
		values, list = all, isList
	}
	if m.IntValue != nil {
		take(false, int64(*m.IntValue))
	}
	if m.LongValue != nil {
		take(false, *m.LongValue)
	}
	if m.StringValue != nil {
		take(false, *m.StringValue)
	}
	if m.TimestampValue != nil {
		take(false, *m.TimestampValue)
	}
	if m.IntValues != nil {
		all := make([]any, 0, len(m.IntValues.Values))
		for _, v := range m.IntValues.Values {
			all = append(all, int64(v))
		}
		take(true, all...)
	}
	if m.LongValues != nil {
		all := make([]any, 0, len(m.LongValues.Values))
		for _, v := range m.LongValues.Values {
			all = append(all, v)
		}
		take(true, all...)
	}
	if m.StringValues != nil {
		all := make([]any, 0, len(m.StringValues.Values))
		for _, v := range m.StringValues.Values {
			all = append(all, v)
		}
		take(true, all...)
	}
	switch given {
	case 0:
		return nil, false, badRequest("filter: %s: has no value", m.Key)
	case 1:
		return values, list, nil
	}
	return nil, false, badRequest("filter: %s: has %d values; want one", m.Key, given)
}

// field is what a list can be filtered and sorted by.
type field struct {
	// value is text, or a time; a zero time stands for none.
	value func(core.Object) any
	// time says which; enum texts compare without regard to case, as clients
	// write them both ways.
	time, enum bool
}

func text(value func(core.Object) string) field {
	return field{value: func(o core.Object) any { return value(o) }}
}

func enum(value func(core.Object) string) field {
	return field{value: func(o core.Object) any { return value(o) }, enum: true}
}

func moment(value func(core.Object) time.Time) field {
	return field{value: func(o core.Object) any { return value(o) }, time: true}
}

// convert makes a predicate's value one of the field's type. Times may be given
// as seconds since 1970, as upstream keeps them.
func (f field) convert(key string, value any) (any, error) {
	if f.time {
		switch v := value.(type) {
		case time.Time:
			return v.Truncate(time.Second), nil
		case int64:
			return time.Unix(v, 0).UTC(), nil
		case string:
			if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
				return t.UTC().Truncate(time.Second), nil
			}
		}
		return nil, badRequest("filter: %s is a time; want a timestamp_value", key)
	}
	v, isText := value.(string)
	if !isText {
		return nil, badRequest("filter: %s is text; want a string_value", key)
	}
	if f.enum {
		v = strings.ToUpper(v)
	}
	return v, nil
}

// holds reports whether an object meets the predicate.
func (p *predicate) holds(f field, obj core.Object) bool {
	have := f.value(obj)
	if f.enum {
		have = strings.ToUpper(have.(string))
	}
	if f.time {
		// Clients know times to the second alone, which is what they are shown
		// by most of them.
		have = have.(time.Time).Truncate(time.Second)
	}
	if p.op == opIn {
		return slices.ContainsFunc(p.values, func(v any) bool { return compareValues(have, v) == 0 })
	}
	want := p.values[0]
	if p.op == opSubstring {
		return strings.Contains(strings.ToLower(have.(string)), strings.ToLower(want.(string)))
	}
	order := compareValues(have, want)
	switch p.op {
	case opEquals:
		return order == 0
	case opNotEquals:
		return order != 0
	case opGreater:
		return order > 0
	case opGreaterEquals:
		return order >= 0
	case opLess:
		return order < 0
	default:
		return order <= 0
	}
}

// compareValues orders two values of one field.
func compareValues(a, b any) int {
	switch a := a.(type) {
	case time.Time:
		b, _ := b.(time.Time)
		return a.Compare(b)
	case float64:
		b, _ := b.(float64)
		return cmp.Compare(a, b) // NaN, where there is no such number, comes first
	default:
		left, _ := a.(string)
		right, _ := b.(string)
		return strings.Compare(left, right)
	}
}

func fieldNames(fields map[string]field) string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
